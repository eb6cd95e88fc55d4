"""What an effect can be. Pure."""

from __future__ import annotations

from typing import NamedTuple

from pitstop_common import messages as m


class Publish(NamedTuple):
    """A message to store. `arms`: it is the timer of this job's deadline of that revision."""

    subject: str
    data: bytes
    headers: dict[str, str]
    arms: tuple[str, int] | None = None


class Disarm(NamedTuple):
    """A timer to purge."""

    subject: str


class View(NamedTuple):
    """A read model to write anew: of a run, or of one of its jobs."""

    run: str
    job: str


class ReportView(NamedTuple):
    """The newest report of a job, to be kept."""

    run: str
    view: m.ReportView


Effect = Publish | Disarm | View | ReportView
