"""The bodies of the API verb `pause`: a job that runs is to wait for a person."""

from __future__ import annotations

import msgspec


class PauseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Have a job pause when its step in progress ends; `off`: not any more. `run`: a run or a job by id; `job`: which
    one of the run (id or key), where several run."""

    run: str
    job: str = ""
    off: bool = False


class Pausing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether `job` will pause, and by whose wish. `step`: at whose end; 0: its host has not said yet. `steps`: the
    names of all."""

    job: str
    run: str
    pausing: bool
    by: str
    step: int
    steps: tuple[str, ...]
