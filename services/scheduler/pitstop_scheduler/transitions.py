"""The life of a job as data: status x change -> status. All that affects it lives in this table.

A change that the table does not allow raises IllegalTransition and leaves the job as it was. The diagram in the
README is generated from here (`diagram`).
"""

from __future__ import annotations

from typing import Final

from pitstop_common.messages import JobStatus

GRANTED, CLAIMED, READY, PAUSED, RESUMED, STOPPED, RETRIED, ENDED = (
    "granted", "claimed", "ready", "paused", "resumed", "stopped", "retried", "ended",
)  # fmt: skip

TABLE: Final[dict[tuple[JobStatus, str], JobStatus]] = {
    ("queued", GRANTED): "starting",
    ("queued", ENDED): "finished",
    ("starting", CLAIMED): "starting",
    ("starting", READY): "running",
    ("starting", STOPPED): "stopping",
    ("starting", RETRIED): "queued",
    ("starting", ENDED): "finished",
    ("running", CLAIMED): "running",
    ("running", PAUSED): "paused",
    ("running", STOPPED): "stopping",
    ("running", RETRIED): "queued",
    ("running", ENDED): "finished",
    ("paused", CLAIMED): "paused",
    ("paused", PAUSED): "paused",
    ("paused", RESUMED): "running",
    ("paused", STOPPED): "stopping",
    ("paused", RETRIED): "queued",
    ("paused", ENDED): "finished",
    ("stopping", CLAIMED): "stopping",
    ("stopping", ENDED): "finished",
}

HOLDS_SLOT: Final[frozenset[JobStatus]] = frozenset({"starting", "running", "paused"})
"""A stopping job has given its slot back already."""
HOLDS_ROOM: Final[frozenset[JobStatus]] = frozenset({"starting", "running", "paused", "stopping"})
"""Room on its host is held until the host says that nothing is left."""


class IllegalTransition(Exception):
    """A change that a job in this status cannot take: a fault in `decide`, never of a message."""


def after(status: JobStatus, change: str) -> JobStatus:
    """The status that follows. Raises IllegalTransition."""
    try:
        return TABLE[status, change]
    except KeyError:
        raise IllegalTransition(f"a {status} job cannot be {change}") from None


def allowed(status: JobStatus, change: str) -> bool:
    """Does the table have it?"""
    return (status, change) in TABLE


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    lines += [f"    {old} --> {new}: {change}" for (old, change), new in TABLE.items() if old != new]
    return "\n".join([*lines, "    finished --> [*]"])
