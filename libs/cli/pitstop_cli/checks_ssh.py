"""The checks of `pitstop doctor ssh JOB`: which keys this machine would offer, whose they are, and who is let in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from pitstop_cli.checks import Check, greeted
from pitstop_cli.console import plain
from pitstop_cli.exits import Failure

_SECONDS: Final = 10.0
_LEAVING: Final = frozenset({"finished", "stopping"})
_LIMIT: Final = 20
"""Keys that the relay lets one connection try (PITSTOP_SSH_MAX_TRIES)."""


class Offered(msgspec.Struct, frozen=True):
    """A key that ssh would offer, in its order. `source`: the agent, or the file of its private half."""

    fingerprint: str
    source: str


def job(entry: dict[str, Any]) -> list[Check]:
    """The job's side: can anybody enter it now."""
    found = entry["job"]
    name, status = found["job"], found["status"]
    if status in _LEAVING:
        return [Check("job", "fail", f"{name} has ended ({found['result'] or 'being stopped'})",
                      f"again, with a session: pitstop rerun {found['run']} --ssh-on-failure")]  # fmt: skip
    if not entry.get("allowed"):
        return [Check("job", "fail", f"{name} lets nobody in: its run asked for no session, or nobody has a key",
                      "pitstop keys add ~/.ssh/id_ed25519.pub, then pitstop run --ssh-on-failure")]  # fmt: skip
    checks = [Check("job", "ok", f"{name} is {status}")]
    if status in {"queued", "starting"}:
        checks = [
            Check("job", "warn", f"{name} is {status}: it has no sandbox yet", f"wait for it: pitstop ssh {name}")
        ]
    who = ", ".join(f"{plain(key['user'])} {key['fingerprint']}" for key in entry["allowed"])
    return [*checks, Check("lets in", "ok", who)]


def keys(entry: dict[str, Any], offered: Iterable[Offered], mine: Iterable[dict[str, Any]]) -> list[Check]:
    """The keys' side: each that would be offered, and what the relay would say to it. The first good one decides."""
    allowed = {key["fingerprint"]: plain(key["user"]) for key in entry.get("allowed", ())}
    registered = {key["fingerprint"] for key in mine}
    checks, entered = [], False
    for number, key in enumerate(offered, 1):
        label = f"{key.fingerprint} ({key.source})"
        if key.fingerprint in allowed and number <= _LIMIT:
            entered = True
            checks.append(Check(f"key {number}", "ok", f"{label}: lets you in as {allowed[key.fingerprint]}"))
        elif key.fingerprint in registered:
            checks.append(Check(f"key {number}", "warn", f"{label}: yours, but not for this job",
                                "who starts the run can name you: pitstop run --ssh-user YOU"))  # fmt: skip
        else:
            checks.append(Check(f"key {number}", "warn", f"{label}: not registered", _to_add(key)))
    if not checks:
        return [Check("keys", "fail", "ssh here has no key to offer",
                      "ssh-keygen -t ed25519, then pitstop keys add ~/.ssh/id_ed25519.pub")]  # fmt: skip
    if not entered:
        checks.append(Check("login", "fail", "none of these keys is let in", "the lines above say what to do"))
    return checks


def _to_add(key: Offered) -> str:
    if key.source == "agent":
        return "ssh-add -L | pitstop keys add -"
    return f"pitstop keys add {key.source}.pub"


def relay(address: dict[str, Any] | None) -> list[Check]:
    """The way there, and the host key."""
    if address is None:
        return []
    pinned = str(address.get("known_hosts") or "")
    known = Check("host key", "ok", "pinned by pitstop ssh; for plain ssh: pitstop ssh JOB --info")
    if not pinned:
        known = Check("host key", "fail", "not known, so nobody could tell whom you would be talking to",
                      "is the relay running? pitstop doctor")  # fmt: skip
    return [known, greeted(address, "a firewall? a VPN? pitstop doctor")]


def offered(address: dict[str, Any] | None, identity: str) -> list[Offered]:
    """As OpenSSH would: first the agent's, then those in files; with a file named, that one alone."""
    if shutil.which("ssh") is None:
        raise Failure("there is no ssh here", next="apt install openssh-client")
    if identity:
        return _of_files([identity])
    host = str(address["host"]) if address else "pitstop.invalid"
    files = [line.partition(" ")[2] for line in _lines(["ssh", "-G", host]) if line.startswith("identityfile ")]
    agent = [Offered(line.split()[1], "agent") for line in _lines(["ssh-add", "-l"]) if " SHA256:" in line]
    known = {key.fingerprint for key in agent}
    return agent + [key for key in _of_files(files) if key.fingerprint not in known]


def _of_files(files: Iterable[str]) -> list[Offered]:
    found = []
    for name in files:
        path = Path(name).expanduser()
        source = str(path).removesuffix(".pub")
        for candidate in (Path(f"{source}.pub"), Path(source)):
            lines = _lines(["ssh-keygen", "-l", "-f", str(candidate)]) if candidate.is_file() else []
            if lines:
                found.append(Offered(lines[0].split()[1], source))
                break
    return found


def _lines(argv: list[str]) -> list[str]:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
