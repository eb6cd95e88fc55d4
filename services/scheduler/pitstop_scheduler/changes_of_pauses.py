"""What a decision can change about pauses that somebody asks for while a job runs."""

from __future__ import annotations

import msgspec


class PauseAsked(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="wa"):
    """`by` wants the job to pause when its step ends; not `on`: not any more. The host, if there is one, is told."""

    job: str
    revision: int
    by: str
    on: bool
    cause: str


class PauseHeard(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="wh"):
    """The host says that the job pauses when this step ends. `serial`: of the fact that said so."""

    job: str
    step: int
    by: str
    serial: int


class PauseTaken(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="wt"):
    """It has paused: who asked for it may enter."""

    job: str
