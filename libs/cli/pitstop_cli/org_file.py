"""`org.toml`: the limits of an org, or of pools, as a file. Pure: text in, limits or faults with their lines out."""

from __future__ import annotations

import contextlib
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from pitstop_cli.durations import duration
from pitstop_common import limits
from pitstop_common.api_orgs import OrgLimits
from pitstop_common.api_pools import PoolLimits, PoolsApply
from pitstop_common.faults import Faults, Path, TooManyFaults, pointer, shown
from pitstop_common.messages import Fault
from pitstop_common.roles import SERVICES
from pitstop_common.ssh_policy import OrgSsh, Revoked
from pitstop_common.ssh_policy import faults as ssh_faults
from pitstop_common.validation import check_struct

_DURATIONS: Final = ("pressure", "max_duration", "longest_session")
_KEYS: Final = ("org", "slots", "weight", *_DURATIONS, "roles", "projects", "pools", "ssh")
_SSH_KEYS: Final = OrgSsh.__struct_fields__
_REVOKED_KEYS: Final = Revoked.__struct_fields__
_POOL_KEYS: Final = ("slots",)
_RULES: Final = ("ssh", "ssh_role", "recording", *SERVICES, "roles")
_PROJECT_KEYS: Final = ("slots", *_RULES)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.S)


class OrgFile(msgspec.Struct, frozen=True, kw_only=True):
    """A sound file: whose limits, and all of them; `org` empty: it is about pools only. `pools`: those it names."""

    org: str
    limits: OrgLimits
    pools: dict[str, PoolLimits] = {}


class BadOrgFile(Exception):
    """What is wrong, each with its line; 0: it has none."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def lines(self, name: str) -> list[str]:
        """`org.toml:3: …`"""
        return [f"{name}:{fault.line}: {fault.message}" if fault.line else f"{name}: {fault.message}"
                for fault in self.faults]  # fmt: skip


def read_org_file(text: str) -> OrgFile:
    """Raises BadOrgFile, with everything that is wrong."""
    text = text.replace("\r\n", "\n")
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadOrgFile((_syntax(error, text),)) from None
    faults = Faults()
    body: dict[str, Any] = {}
    pools: dict[str, Any] = {}
    with contextlib.suppress(TooManyFaults):
        _check_keys(found, _KEYS, faults, ())
        _check_org(found, faults)
        body = _check_values(_body(found, faults), faults)
        pools = _pools(found["pools"], faults) if "pools" in found else {}
    if faults:
        raise BadOrgFile(_placed(faults.found, text))
    return OrgFile(
        org=found.get("org", ""), limits=msgspec.convert(body, OrgLimits),
        pools=msgspec.convert(pools, dict[str, PoolLimits]),
    )  # fmt: skip


def _syntax(error: tomllib.TOMLDecodeError, text: str) -> Fault:
    place = _PLACE.fullmatch(str(error))
    if place is None:
        return Fault(pointer="", message=f"not TOML: {error}")
    line = int(place[2]) if place[2] else text.count("\n", 0, len(text.rstrip())) + 1
    return Fault(pointer="", message=f"not TOML: {place[1]}", line=line, column=int(place[3] or 0))


def _check_keys(table: Iterable[str], known: tuple[str, ...], faults: Faults, path: Path) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}"
            faults.add((*path, key), f"unknown key; {hint}")


def _check_org(found: dict[str, Any], faults: Faults) -> None:
    org = found.get("org")
    if org is None and set(found) == {"pools"}:
        return
    if org is None:
        faults.add(("org",), 'is missing: whose limits are these? org = "acme"')
    elif not isinstance(org, str) or not limits.ORG.match(org):
        faults.add(("org",), "must be lower-case letters, digits and -, at most 39")


def _body(found: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """The limits as the API takes them, as far as they can be told."""
    body: dict[str, Any] = {key: found[key] for key in ("slots", "weight", "roles", "ssh") if key in found}
    for table, known in (("ssh", _SSH_KEYS), ("revoked", _REVOKED_KEYS)):
        said = found.get("ssh") if table == "ssh" else dict(found.get("ssh") or {}).get("revoked")
        _check_keys(said if isinstance(said, dict) else (), known, faults, ("ssh", table)[: 1 + (table != "ssh")])
    tables = dict(_projects(found.get("projects", {}), faults))
    body["projects"] = {name: table["slots"] for name, table in tables.items() if "slots" in table}
    rules = {name: {key: table[key] for key in _RULES if key in table} for name, table in tables.items()}
    body["rules"] = {name: said for name, said in rules.items() if said}
    for key in _DURATIONS:
        value = found.get(key)
        if isinstance(value, str):
            try:
                body[key] = duration(value)
            except ValueError as error:
                faults.add((key,), str(error))
        elif value is not None:
            body[key] = value
    return body


def _check_values(body: dict[str, Any], faults: Faults) -> dict[str, Any]:
    """As the API would. There slots and rules of projects are two fields; in the file they are one table."""
    wrong = Faults()
    sound: dict[str, Any] = {}
    with contextlib.suppress(TooManyFaults):
        sound = check_struct(body, OrgLimits, wrong)
    for fault in wrong.found:
        keys = _keys(fault.pointer)
        if keys[0] == "projects" and len(keys) == 2:
            keys = (*keys, "slots")
        faults.add(("projects", *keys[1:]) if keys[0] == "rules" else keys, fault.message)
    if not wrong:
        for path, text in ssh_faults(msgspec.convert(sound.get("ssh", {}), OrgSsh)):
            faults.add(("ssh", *path), text)
    return sound


def _pools(tables: object, faults: Faults) -> dict[str, Any]:
    if not isinstance(tables, dict):
        faults.add(("pools",), "must be tables: [pools.default]")
        return {}
    for name, table in tables.items():
        if not limits.POOL.match(name):
            faults.add(("pools", name), "no pool has such a name: lower-case letters, digits and -, at most 39")
        elif not isinstance(table, dict):
            faults.add(("pools", name), f"must be a table: [pools.{name}], and in it slots = 8")
        else:
            _check_keys(table, _POOL_KEYS, faults, ("pools", name))
    known = {name: {key: table[key] for key in _POOL_KEYS if key in table}
             for name, table in tables.items() if isinstance(table, dict) and limits.POOL.match(name)}  # fmt: skip
    wrong = Faults()
    sound: dict[str, Any] = {}
    with contextlib.suppress(TooManyFaults):
        sound = check_struct({"pools": known}, PoolsApply, wrong)
    for fault in wrong.found:
        faults.add(_keys(fault.pointer), fault.message)
    return dict(sound.get("pools", {}))


def _keys(of: str) -> tuple[str, ...]:
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in of.split("/")[1:])


def _projects(tables: object, faults: Faults) -> Iterator[tuple[str, Any]]:
    if not isinstance(tables, dict):
        faults.add(("projects",), "must be tables: [projects.web]")
        return
    for name, table in tables.items():
        path = ("projects", name)
        if not limits.PROJECT.match(name):
            faults.add(path, "no project has such a name: letters, digits, dots, - and _, at most 100")
        elif not isinstance(table, dict):
            faults.add(path, f"must be a table: [projects.{name}], and in it slots = 2")
        else:
            _check_keys(table, _PROJECT_KEYS, faults, path)
            if not table:
                faults.add(path, f"says nothing; known: {', '.join(_PROJECT_KEYS)}")
            yield name, table


def _placed(faults: tuple[Fault, ...], text: str) -> tuple[Fault, ...]:
    lines = {pointer(path): line for path, line in key_lines(text).items()}
    placed = []
    for fault in faults:
        named = ".".join(key if _BARE.fullmatch(key) else shown(key) for key in _keys(fault.pointer))
        message = f"{named}: {fault.message}" if named else fault.message
        line = lines.get(fault.pointer) or lines.get(fault.pointer.rpartition("/")[0], 0)  # of an item: its list's
        placed.append(Fault(pointer=fault.pointer, message=message, line=line))
    return tuple(sorted(placed, key=lambda fault: fault.line))


def key_lines(text: str) -> dict[Path, int]:
    """The line of each key of a sound TOML text: where its statement begins, and of a table where it is first named.
    (A statement is the fewest lines that are TOML by themselves.)"""
    found: dict[Path, int] = {}
    table: Path = ()
    held: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        held.append(line)
        try:
            part = tomllib.loads("\n".join(held))
        except tomllib.TOMLDecodeError:
            continue
        first = number - len(held) + 1
        paths = list(_paths(part))
        if held[0].lstrip().startswith("["):
            table = paths[-1]
        else:
            paths = [table + path for path in paths]
        for path in paths:
            found.setdefault(path, first)
        held = []
    return found


def _paths(value: object) -> Iterator[Path]:
    if isinstance(value, list):
        value = next(iter(value), None)
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield (key,)
        yield from ((key, *path) for path in _paths(inner))
