"""Facts about hosts and pools: which hosts take no new jobs, limits, and how partitions of the log share places."""

from __future__ import annotations

from pitstop_common.messages.parts import Message


class HostDrain(Message, frozen=True, kw_only=True, tag="host.drain"):
    """A host is to take no new job (`drain`), or to take jobs again. What runs there goes on. `serial` counts up from 1
    for each host. `org` and `run` are `_`."""

    host: str
    drain: bool
    serial: int
    by: str = ""


class PoolConfigured(Message, frozen=True, kw_only=True, tag="pool.configured"):
    """A new limit of a pool: jobs of all orgs that hold a slot of it at once. `slots` null: the deployment's default;
    0: no limit. A lower one never kills. `org` and `run` are `_`."""

    pool: str
    slots: int | None = None
    by: str = ""


class PoolAsked(Message, frozen=True, kw_only=True, tag="pool.asked"):
    """A partition of the log asks the one that shares a pool's places out for some, or gives some back. Only where
    there are several. `wants`: places it could fill now; `returned`: given back by it in all; `seen`: given to it in
    all, as far as it has heard."""

    pool: str
    partition: int
    wants: int
    returned: int
    seen: int
    serial: int


class PoolShared(Message, frozen=True, kw_only=True, tag="pool.shared"):
    """The answer. `given`: places given to that partition in all; `target`: it is to keep no more than so many, and
    gives back the rest as they come free; `short`: others want places, so it says at once when it needs fewer.
    `limit`: the slots of the pool as they were configured, of which these are a part; null: the default. `over`: more
    is lent than there may be, so it fills none that is empty."""

    pool: str
    partition: int
    given: int
    target: int
    short: bool
    serial: int
    limit: int | None = None
    over: bool = False
