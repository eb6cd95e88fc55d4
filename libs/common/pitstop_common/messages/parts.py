"""The words and parts that messages share."""

from __future__ import annotations

from typing import Literal

import msgspec

Result = Literal["success", "failure", "error", "timeout", "cancellation", "skip"]
PauseReason = Literal["after_step", "before_step", "on_failure", "at_end", "direct", "forced"]
ExpiryReason = Literal["connect_window", "idle", "max_duration", "pressure"]
Choice = Literal["continue", "retry", "skip", "fail", "next"]
UseKind = Literal["shell", "exec", "sftp", "file", "dial", "listen", "agent", "recording"]
JobStatus = Literal["queued", "starting", "running", "paused", "stopping", "finished"]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all facts and events. `id` is deterministic, so that a repeated publish is dropped by the server."""

    id: str
    time: str
    org: str
    run: str
    project: str = ""
    request: str = ""
    job: str = ""
    attempt: int = 0
    cause: str = ""


class SshAddress(msgspec.Struct, frozen=True, kw_only=True):
    """How to enter. `known_hosts` is a whole line for the file of that name; `expires` RFC 3339 or empty."""

    host: str
    port: int
    user: str
    command: str
    known_hosts: str = ""
    expires: str = ""


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a step. `choice` and `by`: what a person in the shell made of it. `outputs`: what it wrote to
    GITHUB_OUTPUT, masked, and no more than fits the record. Seconds."""

    index: int
    name: str
    result: Result | Literal[""] = ""
    exit_code: int | None = None
    attempts: int = 0
    choice: Choice | Literal[""] = ""
    by: str = ""
    started: str = ""
    duration: float = 0
    outputs: dict[str, str] = {}


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
    """All steps so far. Cumulative: the newest report of a job says everything."""

    steps: tuple[StepReport, ...] = ()
    paused: PauseReason | Literal[""] = ""
    paused_step: int = 0
    ssh: SshAddress | None = None
    sandbox: str = ""
    """The backend and its restrictions, in words for the job's header."""
