"""What a step leaves for others: its outputs (GITHUB_OUTPUT) and its summary (GITHUB_STEP_SUMMARY). Both are written by
hostile code: read bounded, masked, and what does not fit is said in the step's log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from pitstop_common.limits import MAX_JOB_OUTPUTS, MAX_OUTPUT_FILE, MAX_OUTPUTS, MAX_SUMMARY
from pitstop_sandbox.model import JobState
from pitstop_sandbox.steps import commands
from pitstop_sandbox.steps.environment import FILES
from pitstop_sandbox.steps.folder import Guarded, Tampered
from pitstop_sandbox.steps.masks import Masks

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}\Z")


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """Masked. `summary` as lines of Markdown; `warnings` for the log, not masked."""

    outputs: dict[str, str] = {}
    summary: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def room(state: JobState, step: int) -> int:
    """How many bytes of outputs this step may leave: what the others of the job have left over."""
    others = (done.outputs for index, done in enumerate(state.steps, 1) if index != step)
    return MAX_JOB_OUTPUTS - sum(size(name, value) for outputs in others for name, value in outputs.items())


def size(name: str, value: str) -> int:
    """Of one output in the record, bytes."""
    return len(name.encode()) + len(value.encode("utf-8", "replace"))


def collect(job_folder: Path, masks: Masks, left: int) -> Results:
    """What the files hold now; `left` bytes are free for outputs. Nothing that lies there makes it fail."""
    warnings: list[str] = []
    data = {"GITHUB_OUTPUT": b"", "GITHUB_STEP_SUMMARY": b""}
    limits = {"GITHUB_OUTPUT": MAX_OUTPUT_FILE, "GITHUB_STEP_SUMMARY": MAX_SUMMARY}
    try:
        with Guarded.open(job_folder) as job, job.folder("github") as files:
            for name, limit in limits.items():
                try:
                    data[name], cut = files.head(FILES[name], limit)
                except Tampered as error:
                    warnings.append(f"{name}: {error}; ignored")
                    continue
                if cut:
                    data[name] = data[name][: data[name].rfind(b"\n") + 1]
                    warnings.append(f"{name}: longer than {limit} bytes; what follows the last whole line is left out")
    except (Tampered, OSError) as error:
        warnings.append(f"what the step left cannot be read: {error}")
    outputs, more = _outputs(data["GITHUB_OUTPUT"], masks, left)
    summary = masks.hide(data["GITHUB_STEP_SUMMARY"].decode("utf-8", "replace").replace("\0", "�"))
    lines = tuple(summary.removesuffix("\n").split("\n")) if summary.strip() else ()
    return Results(outputs=outputs, summary=lines, warnings=(*warnings, *commands.at_most_ten(more)))


def _outputs(data: bytes, masks: Masks, left: int) -> tuple[dict[str, str], list[str]]:
    found: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in commands.pairs(data):
        fault = _fault(name, value) or ("holds a masked value" if masks.hide(name) != name else "")
        if not fault and name not in found and len(found) >= MAX_OUTPUTS:
            fault = f"more than {MAX_OUTPUTS} outputs"
        if fault or value is None:
            warnings.append(f"GITHUB_OUTPUT: {commands.short(name)}: {fault}; left out")
        else:
            found[name] = masks.hide(value)
    kept: dict[str, str] = {}
    for name, value in found.items():
        left -= size(name, value)
        if left < 0:
            left += size(name, value)
            warnings.append(f"GITHUB_OUTPUT: {name}: over {MAX_JOB_OUTPUTS} bytes of outputs in the job; left out")
        else:
            kept[name] = value
    return kept, warnings


def _fault(name: str, value: str | None) -> str:
    if value is None:
        return "no NAME=value and no NAME<<END"
    if not _NAME.match(name):
        return "not a name: letters, digits, _ and -, at most 100"
    return "a NUL byte in the value" if "\0" in value else ""
