"""What a decision can change of a pool: its limit, and how its places are shared between partitions. Totals only
grow."""

from __future__ import annotations

import msgspec


class PoolLimit(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pc"):
    """Slots of a pool from now on, in the partition that shares it out. 0: no limit; None: the default."""

    pool: str
    slots: int | None


class Asked(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pa"):
    """This partition asks for places of a pool, or gives some back. Totals, so that a fact that comes twice or late
    says nothing new."""

    pool: str
    wants: int
    returned: int
    serial: int


class Shared(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="ps"):
    """What this partition has been given of a pool."""

    pool: str
    given: int
    target: int
    short: bool
    serial: int
    limit: int | None = None
    over: bool = False


class Demand(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pd"):
    """This partition shares a pool out, and has heard what another wants and has given back."""

    pool: str
    partition: int
    wants: int
    returned: int
    serial: int


class Leased(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pl"):
    """This partition shares a pool out: so many places in all to that one, of which it is to keep no more than
    `target`; `short`: others want places; `over`: more is lent than there may be, nobody fills one."""

    pool: str
    partition: int
    given: int
    target: int
    short: bool
    serial: int
    limit: int | None = None
    over: bool = False
