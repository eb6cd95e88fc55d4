"""Generates `schemas/` from the types: `python -m pitstop_common.schema write|check DIR`.

`v1/<name>.json` is a JSON Schema (2020-12) of each message; `asyncapi.json` says where it travels. The same types
give the same bytes; `check` prints what differs and exits 1.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from pitstop_common import api, messages
from pitstop_common.asyncapi import document
from pitstop_common.requests import RunRequest

VERSION: Final = "v1"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_OTHERS: Final[dict[str, type[msgspec.Struct]]] = {
    "run.requested": RunRequest,
    "work.start": messages.Start,
    "work.stop": messages.Stop,
    "work.resume": messages.Resume,
    "work.drain": messages.Drain,
    "timer.fired": messages.Fired,
    "log.chunk": messages.LogChunk,
    "view.run": messages.RunView,
    "view.job": messages.JobView,
    "view.report": messages.ReportView,
    "view.rerun": messages.RerunView,
    "host.heartbeat": messages.Heartbeat,
    "host.claim": messages.Claim,
    "svc.access.request": messages.AccessRequest,
    "svc.access.reply": messages.AccessReply,
    "svc.secrets.request": messages.SecretsRequest,
    "svc.secrets.reply": messages.SecretsReply,
    "link.dial.request": messages.DialRequest,
    "link.dial.reply": messages.DialReply,
    "host.sweep.request": messages.SweepRequest,
    "host.sweep.reply": messages.SweepReply,
    "api.error": api.ApiError,
}


def tagged(union: Any) -> dict[str, type[msgspec.Struct]]:
    """The members of a union of messages, by the `type` they carry."""
    return {str(member.__struct_config__.tag): member for member in get_args(union)}


def types() -> dict[str, type[msgspec.Struct]]:
    """Everything that has a schema, by the name of its file."""
    found = tagged(messages.Fact) | tagged(messages.Event) | _OTHERS
    for verb, bodies in api.VERBS.items():
        found |= {f"api.{verb}.request": bodies.request, f"api.{verb}.reply": bodies.reply}
    return dict(sorted(found.items()))


def json_schema(name: str, type_: type[msgspec.Struct]) -> dict[str, Any]:
    """A schema that stands alone."""
    made = msgspec.json.schema(type_)
    if type_ is RunRequest:
        made["oneOf"] = [{"required": ["workflow"]}, {"required": ["steps"]}, {"required": ["rerun_of"]}]
    return {"$schema": _DIALECT, "$id": f"urn:pitstop:{VERSION}:{name}", **made}


def files() -> dict[str, str]:
    """The whole folder: relative path and text."""
    made = {f"{VERSION}/{name}.json": _text(json_schema(name, type_)) for name, type_ in types().items()}
    return made | {"asyncapi.json": _text(document())}


def write(folder: Path) -> None:
    """Make the folder what it should be. Files of types that are no more are removed; `examples/` is left alone."""
    made = files()
    (folder / VERSION).mkdir(parents=True, exist_ok=True)
    for old in set(_present(folder)) - made.keys():
        (folder / old).unlink()
    for path, text in made.items():
        (folder / path).write_text(text)


def drift(folder: Path) -> Iterator[str]:
    """Unified diff lines from what lies there to what should; none when they agree."""
    present, made = _present(folder), files()
    for path in sorted(present.keys() | made.keys()):
        old, new = present.get(path, ""), made.get(path, "")
        yield from difflib.unified_diff(
            old.splitlines(), new.splitlines(), f"there/{path}", f"made/{path}", lineterm=""
        )


def _present(folder: Path) -> dict[str, str]:
    found = [*folder.glob(f"{VERSION}/*.json"), *folder.glob("asyncapi.json")]
    return {file.relative_to(folder).as_posix(): file.read_text() for file in found}


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """The command. 0: written, or no drift; 1: drift; 2: usage."""
    if len(arguments) != 2 or arguments[0] not in ("write", "check"):
        sys.stderr.write("usage: python -m pitstop_common.schema write|check DIR\n")
        return 2
    folder = Path(arguments[1])
    if arguments[0] == "write":
        write(folder)
        return 0
    lines = list(drift(folder))
    if lines:
        again = f"the schemas are not those of the types; run: python -m pitstop_common.schema write {folder}"
        sys.stderr.write("\n".join([*lines, again, ""]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
