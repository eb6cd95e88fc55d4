"""The output of steps (stream LOGS)."""

from __future__ import annotations

from typing import Literal

import msgspec


class LogChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a step's output, masked, in order. `first` counts lines of this step and try from 0: a reader drops
    lines it has had. `kind`: output; notice (Pitstop's own words to the reader, step 0); summary (what the step wrote
    to GITHUB_STEP_SUMMARY, in one chunk; that of the newest try counts); end (the job's log is complete)."""

    job: str
    attempt: int
    step: int
    tries: int
    name: str
    first: int
    lines: tuple[str, ...]
    kind: Literal["output", "notice", "summary", "end"] = "output"
    time: str = ""
