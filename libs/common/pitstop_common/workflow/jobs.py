"""Reads a whole workflow file: its jobs, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from pitstop_common.faults import Faults, TooManyFaults, shown
from pitstop_common.ids import job_id
from pitstop_common.limits import (
    CONTEXT,
    IMAGE,
    MAX_IMAGE_CHARS,
    MAX_JOBS,
    MAX_LABELS,
    MAX_NAME_CHARS,
    MAX_TIMEOUT_MINUTES,
)
from pitstop_common.spec import JobSpec
from pitstop_common.workflow.place import Place, Reading
from pitstop_common.workflow.reader import read_yaml
from pitstop_common.workflow.steps import IDENTIFIER, Defaults, read_condition, read_shell, read_steps
from pitstop_common.workflow.tree import MappingNode, ScalarNode, SequenceNode

_KEYS: Final = ("name", "on", "env", "defaults", "jobs")
_IGNORED: Final = ("run-name", "permissions", "concurrency")
_JOB_KEYS: Final = (
    "name",
    "runs-on",
    "env",
    "defaults",
    "timeout-minutes",
    "steps",
    "if",
    "continue-on-error",
    "environment",
    "container",
)
_JOB_IGNORED: Final = ("permissions", "concurrency")
_JOB_LATER: Final = (
    "needs",
    "strategy",
    "services",
    "outputs",
    "uses",
    "with",
    "secrets",
    "snapshot",
)
_OTHER_SYSTEMS: Final = ("windows", "macos")


class _Shared(msgspec.Struct, frozen=True):
    """What the file says for all its jobs."""

    env: dict[str, str]
    defaults: Defaults


def read_workflow(text: str, faults: Faults, *, run: str, only: Sequence[str], pool: str) -> tuple[JobSpec, ...]:
    """The jobs of a file, numbered in its order. With faults noted, the result is of no use but for further checks.

    `only`: keys or names of the jobs wanted; the others are not looked into. Never raises.
    """
    try:
        text = text.removeprefix("\ufeff")
        root = read_yaml(text, faults, ("workflow",))
        if root is None:
            return ()
        return _read_file(Place(Reading(faults, text), root, ("workflow",)), faults, run, only, pool)
    except TooManyFaults:
        return ()


def _read_file(place: Place, faults: Faults, run: str, only: Sequence[str], pool: str) -> tuple[JobSpec, ...]:
    if place.missing:
        place.fault("is empty")
        return ()
    fields = place.fields(_KEYS, ignored=_IGNORED)
    if "name" in fields:
        fields["name"].text()
    shared = _Shared(
        env=fields["env"].variables() if "env" in fields else {},
        defaults=_defaults(fields["defaults"], Defaults()) if "defaults" in fields else Defaults(),
    )
    if "jobs" not in fields:
        place.fault("has no `jobs`")
        return ()
    found = fields["jobs"].entries()
    if not found:
        fields["jobs"].fault("has no jobs; at least one is needed")
    if len(found) > MAX_JOBS:
        fields["jobs"].fault(f"has {len(found)} jobs; at most {MAX_JOBS} are accepted")
        return ()
    wanted = _wanted(found, only, faults)
    return tuple(_read_job(key, found[key], job_id(run, n), shared, pool) for n, key in enumerate(wanted, start=1))


def _wanted(found: dict[str, Place], only: Sequence[str], faults: Faults) -> list[str]:
    if not only:
        return list(found)
    names = {key: _written_name(place) for key, place in found.items()}
    for i, name in enumerate(only):
        if name not in found and name not in names.values():
            listed = ", ".join(shown(key) for key in list(found)[:20])
            faults.add(("jobs", i), f"the workflow has no job {shown(name)}; it has {listed or 'none'}")
    return [key for key in found if key in only or names[key] in only]


def _written_name(place: Place) -> str:
    name = place.node.entries.get("name") if isinstance(place.node, MappingNode) else None
    node = name.node if name else None
    return node.text if isinstance(node, ScalarNode) else ""


def _read_job(key: str, place: Place, job: str, shared: _Shared, pool: str) -> JobSpec:
    if not IDENTIFIER.match(key):
        place.fault(
            f"{shown(key)} cannot be the key of a job: letters, digits, - and _, not starting with a digit", at_key=True
        )
    fields = place.fields(_JOB_KEYS, later=_JOB_LATER, ignored=_JOB_IGNORED)
    _check_unconditional(fields)
    minutes = fields["timeout-minutes"].number(0, MAX_TIMEOUT_MINUTES) if "timeout-minutes" in fields else None
    defaults = _defaults(fields["defaults"], shared.defaults) if "defaults" in fields else shared.defaults
    env = shared.env | (fields["env"].variables() if "env" in fields else {})
    if "steps" not in fields and "uses" not in place.entries():
        place.fault("has no `steps`", at_key=True)
    spec = JobSpec(
        job=job, key=key, pool=pool, env=env,
        runs_on=_labels(fields["runs-on"]) if "runs-on" in fields else (),
        name=(fields["name"].text() if "name" in fields else None) or key[:MAX_NAME_CHARS],
        steps=read_steps(fields["steps"], defaults) if "steps" in fields else (),
        secrets=_environment(fields["environment"]) if "environment" in fields else (),
        image=_image(fields["container"]) if "container" in fields else "",
    )  # fmt: skip
    return spec if minutes is None else msgspec.structs.replace(spec, timeout=minutes * 60)


def _labels(place: Place) -> tuple[str, ...]:
    """What its host must have: each label once, in small letters. A `group` is a pool, whose name is a label, too."""
    found = [place]
    if isinstance(place.node, MappingNode):
        inner = place.fields(("group", "labels"))
        found = [inner[name] for name in ("group", "labels") if name in inner]
    found = [item for each in found for item in _each(each)]
    if not found:
        place.fault("names no label; leave it out, or use one such as ubuntu-latest")
    if len(found) > MAX_LABELS:
        place.fault(f"has {len(found)} labels; at most {MAX_LABELS} are accepted")
        return ()
    texts = [_label(label) for label in found]
    return tuple(dict.fromkeys(text for text in texts if text))


def _label(place: Place) -> str:
    text = place.text() or ""
    if text.lower().startswith(_OTHER_SYSTEMS):
        place.fault(f"{shown(text)} cannot run here: sandboxes are Linux; use a Linux label such as ubuntu-latest")
    return text.lower()


def _environment(place: Place) -> tuple[str, ...]:
    """The context whose secrets the job gets: its name, or a mapping with `name`. (A `url` changes nothing here.)"""
    if isinstance(place.node, MappingNode):
        inner = place.fields(("name",), ignored=("url", "deployment"))
        if "name" not in inner:
            place.fault("has no `name`")
            return ()
        place = inner["name"]
    name = place.text()
    if name is None:
        return ()
    if not CONTEXT.match(name):
        place.fault(f"{shown(name)} cannot be a context of secrets: letters, digits, - and _, at most 64")
        return ()
    return (name,)


def _image(place: Place) -> str:
    """The image of a job's container: its name, or a mapping with `image`."""
    if isinstance(place.node, MappingNode):
        inner = place.fields(("image",), later=("credentials", "env", "ports", "volumes", "options"))
        if "image" not in inner:
            place.fault("has no `image`")
            return ""
        place = inner["image"]
    name = place.text(MAX_IMAGE_CHARS) or ""
    if name and not IMAGE.match(name):
        place.fault(f"{shown(name)} cannot be the name of an image, such as debian:12 or registry:5000/team/build")
    return name


def _each(place: Place) -> list[Place]:
    return place.items() if isinstance(place.node, SequenceNode) else [place]


def _check_unconditional(fields: dict[str, Place]) -> None:
    """Jobs are independent: `success()` and `always()` change nothing, anything else would."""
    if "if" in fields and read_condition(fields["if"]) not in ("success", "always"):
        fields["if"].fault("a job's `if` is not supported yet, except success() and always()")
    if "continue-on-error" in fields and fields["continue-on-error"].flag():
        fields["continue-on-error"].fault("a job's `continue-on-error: true` is not supported yet; set it on the steps")


def _defaults(place: Place, outer: Defaults) -> Defaults:
    fields = place.fields(("run",))
    inner = fields["run"].fields(("shell", "working-directory")) if "run" in fields else {}
    folder = inner["working-directory"].text(4096) if "working-directory" in inner else None
    shell = read_shell(inner["shell"]) if "shell" in inner else ""
    return Defaults(shell or outer.shell, outer.working_directory if folder is None else folder)
