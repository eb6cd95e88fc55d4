"""What a decision can change: the items of the decision log. Arrays of msgpack, so a job costs few bytes.

A record is one tick: its changes, and how far the facts had been read. State is a fold of records and of nothing
else, so a change carries whatever the fold or its effects need.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from pitstop_common.messages import ExpiryReason, PauseReason, Result
from pitstop_scheduler.changes_of_hosts import Drained as Drained
from pitstop_scheduler.changes_of_hosts import HostLost as HostLost
from pitstop_scheduler.changes_of_hosts import Room as Room
from pitstop_scheduler.changes_of_orgs import Defaults as Defaults
from pitstop_scheduler.changes_of_orgs import HoldRemoved as HoldRemoved
from pitstop_scheduler.changes_of_orgs import HoldSet as HoldSet
from pitstop_scheduler.changes_of_orgs import HoldUsed as HoldUsed
from pitstop_scheduler.changes_of_orgs import Limits as Limits
from pitstop_scheduler.changes_of_pauses import PauseAsked as PauseAsked
from pitstop_scheduler.changes_of_pauses import PauseHeard as PauseHeard
from pitstop_scheduler.changes_of_pauses import PauseTaken as PauseTaken
from pitstop_scheduler.changes_of_pools import Asked as Asked
from pitstop_scheduler.changes_of_pools import Demand as Demand
from pitstop_scheduler.changes_of_pools import Leased as Leased
from pitstop_scheduler.changes_of_pools import PoolLimit as PoolLimit
from pitstop_scheduler.changes_of_pools import Shared as Shared


class Change(msgspec.Struct, frozen=True, array_like=True, tag_field="t"):
    """Base. The tag is one or two letters."""


class Queued(Change, frozen=True, array_like=True, tag="q"):
    """A run enters the queue. `jobs`: (id, key, pool, offers a session). Windows in seconds."""

    run: str
    org: str
    project: str
    request: str
    actor: str
    priority: int
    source: str
    trace: str
    jobs: tuple[tuple[str, str, str, bool], ...]
    connect_window: float
    idle_timeout: float
    max_duration: float
    on_expiry: Literal["cancel", "resume"]
    position: int
    cause: str
    retry: bool = False
    rerun_of: str = ""
    notes: tuple[str, ...] = ()
    ref: str = ""


class Duplicate(Change, frozen=True, array_like=True, tag="d"):
    """The same request again, by another message."""

    run: str
    org: str
    project: str
    request: str
    source: str
    trace: str
    cause: str


class Granted(Change, frozen=True, array_like=True, tag="g"):
    """A job gets a slot. `first`: of its run; `waited` seconds; `hold`: armed for it, at its first failure."""

    job: str
    attempt: int
    first: bool
    waited: float
    hold: str = ""


class Claimed(Change, frozen=True, array_like=True, tag="c"):
    """A host runs it (or a new incarnation of that host goes on with it)."""

    job: str
    attempt: int
    host: str
    incarnation: str
    key: str = ""


class Ready(Change, frozen=True, array_like=True, tag="r"):
    """Its sandbox stands."""

    job: str
    cause: str


class Paused(Change, frozen=True, array_like=True, tag="p"):
    """It waits for its person, from now."""

    job: str
    reason: PauseReason
    so_far: Result
    cause: str


class Resumed(Change, frozen=True, array_like=True, tag="u"):
    """Its steps go on."""

    job: str
    cause: str


class Entered(Change, frozen=True, array_like=True, tag="e"):
    """A person connected: one of `sessions`. `serial`: of the fact that said so."""

    job: str
    session: str
    serial: int


class Left(Change, frozen=True, array_like=True, tag="l"):
    """A connection ended."""

    job: str
    session: str
    reason: str


class Active(Change, frozen=True, array_like=True, tag="a"):
    """Somebody was active at that time (seconds since the epoch, server's clock). `serial`: of the fact that said so;
    said again later it would be another time."""

    job: str
    at: float
    serial: int


class Deadline(Change, frozen=True, array_like=True, tag="w"):
    """The session ends at `at` unless something happens. 0: it does not end by itself. `warn_at` 0: nobody is there to
    be warned."""

    job: str
    reason: ExpiryReason | Literal[""]
    at: float
    warn_at: float
    revision: int


class Warned(Change, frozen=True, array_like=True, tag="b"):
    """The people inside are told that their session ends in `left` seconds."""

    job: str
    reason: ExpiryReason
    left: float
    cause: str


class Extended(Change, frozen=True, array_like=True, tag="i"):
    """A person keeps the session until `until`."""

    job: str
    until: float
    by: str
    cause: str


class Pressed(Change, frozen=True, array_like=True, tag="v"):
    """Runs of the org wait now, or no more: its idle limit changes."""

    org: str
    waits: bool


class Stopped(Change, frozen=True, array_like=True, tag="s"):
    """A job that a host has is told to end: its slot is free now, its host's room is not. `by` a person, or empty."""

    job: str
    attempt: int
    result: Result
    reason: str
    by: str
    cause: str


class Continued(Change, frozen=True, array_like=True, tag="n"):
    """A session expired whose action is to resume: its host is told to go on."""

    job: str
    attempt: int
    reason: str
    cause: str


class Retried(Change, frozen=True, array_like=True, tag="j"):
    """An attempt is lost, by no fault of the job: it goes back to its old place in the queue. Frees what it held."""

    job: str
    attempt: int
    reason: str
    cause: str


class Ended(Change, frozen=True, array_like=True, tag="f"):
    """Nothing of the job is left. Frees what it held."""

    job: str
    attempt: int
    result: Result
    reason: str
    cause: str


class Stray(Change, frozen=True, array_like=True, tag="y"):
    """A host has claimed an attempt that is over: it is told to stop it."""

    org: str
    run: str
    job: str
    attempt: int
    host: str
    cause: str


class RunEnded(Change, frozen=True, array_like=True, tag="x"):
    """All jobs of the run have ended."""

    run: str
    result: Result
    reason: str
    cause: str


class Reported(Change, frozen=True, array_like=True, tag="o"):
    """What the host said of the steps (JSON of a JobReport). The fold keeps none of it but `serial`, the place of the
    fact among those of its attempt; the read model keeps the rest."""

    job: str
    attempt: int
    serial: int
    report: bytes
    message: str


AnyChange = (
    Queued | Duplicate | Granted | Claimed | Ready | Paused | Resumed | Entered | Left | Active | Deadline | Warned
    | Extended | Pressed | Stopped | Continued | Retried | Ended | Stray | RunEnded | Reported | Room | HostLost
    | Limits | Defaults | HoldSet | HoldRemoved | HoldUsed | PoolLimit | Asked | Shared | Demand
    | Leased | PauseAsked | PauseHeard | PauseTaken | Drained
)  # fmt: skip


class Record(msgspec.Struct, frozen=True, array_like=True):
    """One message of the log. `now`: the clock of the decision. `watermark`: the sequence in IN up to which facts are
    taken in. `published_to`: the record up to which every effect was acknowledged when this one was written. `after`:
    the sequence of the record before it, so that a reader sees a gap (-1: written by a version that did not say)."""

    epoch: int
    number: int
    owner: str
    watermark: int
    now: float
    published_to: int
    changes: tuple[AnyChange, ...]
    after: int = -1


encode_record = msgspec.msgpack.Encoder().encode
decode_record = msgspec.msgpack.Decoder(Record).decode


def read_record(data: bytes) -> Record | None:
    """None: it is no record. Whoever may publish anything can name a subject of the log for the server's answer, and
    the server stores that answer there."""
    try:
        return decode_record(data)
    except msgspec.MsgspecError:
        return None
