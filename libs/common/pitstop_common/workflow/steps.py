"""Reads the steps of a job, from a workflow file or from the `steps` of a request."""

from __future__ import annotations

import re
import shlex
from typing import Final

import msgspec

from pitstop_common.faults import shown
from pitstop_common.limits import (
    MAX_ENV_VALUE_CHARS,
    MAX_NAME_CHARS,
    MAX_REQUEST_BYTES,
    MAX_SHELL_CHARS,
    MAX_STEPS,
    MAX_TIMEOUT_MINUTES,
)
from pitstop_common.spec import Condition, StepSpec
from pitstop_common.workflow.place import EXPRESSION, Place
from pitstop_common.workflow.tree import MappingNode, ScalarNode, SequenceNode

CONDITIONS: Final[dict[str, Condition]] = {
    "always": "always",
    "success": "success",
    "failure": "failure",
    "cancelled": "cancelled",
}
SHELLS: Final = ("bash", "sh", "python", "pwsh")
SCRIPT: Final = "{0}"
"""Stands for the script's file in a shell of one's own (`perl {0}`)."""
IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}\Z")

_COMMON: Final = ("name", "id", "env", "if", "continue-on-error", "timeout-minutes")
_RUN_ONLY: Final = ("run", "shell", "working-directory")
_USES_ONLY: Final = ("uses", "with")
STEP_KEYS: Final = (*_RUN_ONLY, *_USES_ONLY, *_COMMON)
CHECKOUT_FLAGS: Final = ("fetch-tags", "lfs", "clean", "sparse-checkout-cone-mode")
CHECKOUT_OPTIONS: Final = ("ref", "path", "fetch-depth", "submodules", "sparse-checkout", *CHECKOUT_FLAGS)
CHECKOUT_PASSED_OVER: Final = ("persist-credentials", "show-progress", "set-safe-directory")
"""Taken, and without effect: no credential is ever in a sandbox, and the files there are its user's own."""

_CHECKOUT: Final = re.compile(r"actions/checkout@[A-Za-z0-9][A-Za-z0-9._/-]{0,99}\Z")
_CONDITION: Final = re.compile(r"([a-z]+)\(\s*\)\Z", re.IGNORECASE)
_GIT_REF: Final = re.compile(r"(?!-)(?!.*\.\.)[^\x00-\x20\x7f~^:?*\[\\]{1,250}\Z")
_DEPTH: Final = re.compile(r"[0-9]{1,9}\Z")


class Defaults(msgspec.Struct, frozen=True):
    """`defaults.run`: what a step without its own takes."""

    shell: str = ""
    working_directory: str = ""


def read_steps(place: Place, defaults: Defaults) -> tuple[StepSpec, ...]:
    """All steps that could be read; a step that is refused leaves its number free, so that numbers stay true."""
    items = place.items()
    if not items and isinstance(place.node, SequenceNode):
        place.fault("has no steps; at least one is needed")
    if len(items) > MAX_STEPS:
        place.fault(f"has {len(items)} steps; at most {MAX_STEPS} are accepted")
        return ()
    steps = []
    ids: dict[str, int] = {}
    for index, item in enumerate(items, start=1):
        step = _read_step(item, index, defaults)
        if step.id and step.id in ids:
            item.fault(f"the id {shown(step.id)} is that of step {ids[step.id]} already")
        ids.setdefault(step.id, index)
        steps.append(step)
    return tuple(steps)


def read_shell(place: Place) -> str:
    """One of the shells that exist here, or a command with `{0}` in it; empty after a fault."""
    name = place.text(MAX_SHELL_CHARS)
    if name is None or name in SHELLS:
        return name or ""
    try:
        words = shlex.split(name)
    except ValueError as error:
        place.fault(f"the shell {shown(name)} cannot be read: {str(error).lower()}")
        return ""
    if SCRIPT in name and SCRIPT not in words[0]:
        return name
    known = f"{', '.join(SHELLS)}, or a command with {SCRIPT} in the place of the script, like `perl {SCRIPT}`"
    place.fault(f"the shell {shown(name)} is not supported; known are {known}")
    return ""


def read_condition(place: Place) -> Condition:
    """`if:` of a step: one of the four status functions, in `${{ }}` or not."""
    node = place.node
    raw = node.text if isinstance(node, ScalarNode) else ""
    inner = raw.strip()
    if inner.startswith(EXPRESSION) and inner.endswith("}}"):
        inner = inner.removeprefix(EXPRESSION).removesuffix("}}").strip()
    call = _CONDITION.match(inner)
    if call and call.group(1).lower() in CONDITIONS:
        return CONDITIONS[call.group(1).lower()]
    known = ", ".join(f"{name}()" for name in CONDITIONS)
    place.fault(f"the condition {shown(raw.strip())} is not supported yet; `if` knows {known}")
    return "success"


def _read_step(place: Place, index: int, defaults: Defaults) -> StepSpec:
    if place.missing:
        place.fault("is empty; a step needs `run` or `uses`")
        return StepSpec(index=index, name="")
    fields = place.fields(STEP_KEYS)
    values: dict[str, object] = {}
    if "id" in fields:
        values["id"] = _identifier(fields["id"])
    if "env" in fields:
        values["env"] = fields["env"].variables()
    if "if" in fields:
        values["condition"] = read_condition(fields["if"])
    if "continue-on-error" in fields:
        values["continue_on_error"] = fields["continue-on-error"].flag() or False
    if "timeout-minutes" in fields:
        values["timeout"] = 60 * (fields["timeout-minutes"].number(0, MAX_TIMEOUT_MINUTES) or 0)
    if "uses" in fields:
        values |= _action(fields)
    elif "run" in fields:
        values |= _command(fields, defaults)
    elif isinstance(place.node, MappingNode):
        place.fault("needs `run` (a command) or `uses` (an action)")
    if "name" in fields and (name := fields["name"].text()):
        values["name"] = name
    return msgspec.structs.replace(StepSpec(index=index, name=f"Step {index}"), **values)


def _identifier(place: Place) -> str:
    text = place.text()
    if text is not None and not IDENTIFIER.match(text):
        place.fault(f"{shown(text)} cannot be an id: letters, digits, - and _, not starting with a digit or -")
        return ""
    return text or ""


def _command(fields: dict[str, Place], defaults: Defaults) -> dict[str, object]:
    if "with" in fields:
        fields["with"].fault("`with` belongs to `uses`; a command takes `env`", at_key=True)
    script = fields["run"].value(MAX_REQUEST_BYTES)
    if script is not None and not script.strip():
        fields["run"].fault("is empty; it needs a command")
    folder = fields["working-directory"].text(4096) if "working-directory" in fields else None
    return {
        "name": _named_after(script or ""),
        "run": script or "",
        "shell": read_shell(fields["shell"]) if "shell" in fields else defaults.shell,
        "working_directory": defaults.working_directory if folder is None else folder,
    }


def _named_after(script: str) -> str:
    lines = [line.strip() for line in script.splitlines() if line.strip()]
    name = "Run " + "".join(char if char.isprintable() else " " for char in lines[0] if lines) if lines else "Run"
    return name if len(name) <= MAX_NAME_CHARS else name[: MAX_NAME_CHARS - 1] + "…"


def _action(fields: dict[str, Place]) -> dict[str, object]:
    for key in _RUN_ONLY:
        if key in fields:
            fields[key].fault(f"`{key}` and `uses` exclude each other in one step", at_key=True)
    action = fields["uses"].text()
    if action is None:
        return {}
    if not _CHECKOUT.match(action):
        hint = "write actions/checkout@v4" if action == "actions/checkout" else "write the command with `run`"
        fields["uses"].fault(f"the action {shown(action)} is not supported (only actions/checkout@… is); {hint}")
        return {}
    options = _options(fields["with"]) if "with" in fields else {}
    return {"kind": "checkout", "name": f"Run {action}", "options": options}


def _options(place: Place) -> dict[str, str]:
    options = {}
    for key, inner in place.entries().items():
        if key in CHECKOUT_PASSED_OVER:
            continue
        if key not in CHECKOUT_OPTIONS:
            known = ", ".join(CHECKOUT_OPTIONS)
            inner.fault(f"the option {shown(key)} of checkout is not supported; known are {known}", at_key=True)
        elif (text := _option(key, inner)) is not None and _fits(key, text, inner):
            options[key] = text
    return options


def _option(key: str, place: Place) -> str | None:
    many = key == "sparse-checkout"
    return place.value(MAX_ENV_VALUE_CHARS, typed=False) if many else place.text(4096, typed=False)


def _fits(key: str, text: str, place: Place) -> bool:
    if key == "ref" and not _GIT_REF.match(text):
        place.fault(f"{shown(text)} cannot be the name of a branch, a tag or a commit")
    elif key == "fetch-depth" and not _DEPTH.match(text):
        place.fault(f"must be a number of commits (0 for all), not {shown(text)}")
    elif key in CHECKOUT_FLAGS and text not in ("true", "false"):
        place.fault(f"must be true or false, not {shown(text)}")
    elif key == "submodules" and text not in ("true", "false", "recursive"):
        place.fault(f"must be true, false or recursive, not {shown(text)}")
    elif key == "path" and (text.startswith(("/", "~")) or ".." in text.split("/")):
        place.fault("must be a path inside the workspace: relative, and without `..`")
    else:
        return True
    return False
