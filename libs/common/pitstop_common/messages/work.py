"""Work and commands for hosts (stream WORK), and the bodies of deadlines (stream TIMERS)."""

from __future__ import annotations

from typing import Final

import msgspec

from pitstop_common.messages.parts import ExpiryReason, Result

HOLD_OVER: Final = "hold_over"
"""The reason of a Resume after which a job that waits for its own people goes on waiting."""


class Start(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="start"):
    """Run this attempt of this job. The spec is in SPECS."""

    org: str
    run: str
    job: str
    attempt: int
    project: str = ""
    request: str = ""
    max_duration: float = 0
    """How long a session of it may last from the first login, seconds; 0: as the spec says."""
    hold: str = ""
    hold_user: str = ""
    """A hold that was armed for it (`hold.set`), and whose: it waits for them at its first failure."""
    cause: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stop"):
    """End a job. `result` is what the log has given it already. `notice` is shown to people inside."""

    org: str
    run: str
    job: str
    attempt: int
    result: Result
    reason: str = ""
    notice: str = ""
    cause: str = ""


class Resume(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="resume"):
    """End the pause of a job and go on: a session expired whose action is `resume`, or (HOLD_OVER) the hold that it
    waits for was used up or removed meanwhile."""

    org: str
    run: str
    job: str
    attempt: int
    reason: str = ""
    notice: str = ""
    cause: str = ""


class Warn(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="warn"):
    """Show `notice` to the people inside: their session ends in `left` seconds unless they act."""

    org: str
    run: str
    job: str
    attempt: int
    reason: ExpiryReason
    left: float
    notice: str
    cause: str = ""


class Pause(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="pause"):
    """Pause when the step in progress ends, as `by` has asked; `off`: not any more. Of two the one of the higher
    revision counts."""

    org: str
    run: str
    job: str
    attempt: int
    revision: int
    by: str = ""
    off: bool = False
    cause: str = ""


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="drain"):
    """Take no new job, or (`on` false) take jobs again. One of an older `serial` than the host knows means nothing."""

    on: bool
    serial: int


Command = Stop | Resume | Warn | Pause
"""About a job."""
HostCommand = Command | Drain


class Fired(msgspec.Struct, frozen=True, kw_only=True):
    """The body of an armed deadline."""

    org: str
    run: str
    project: str
    request: str
    job: str
    attempt: int
    reason: ExpiryReason
    revision: int
    warn: bool = False
    """The deadline only comes near; else it is due."""
