"""What a decision can change in how the places of a pool are shared between partitions. Totals only grow."""

from __future__ import annotations

import msgspec


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


class Demand(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pd"):
    """This partition shares a pool out, and has heard what another wants and has given back."""

    pool: str
    partition: int
    wants: int
    returned: int
    serial: int


class Leased(msgspec.Struct, frozen=True, array_like=True, tag_field="t", tag="pl"):
    """This partition shares a pool out: so many places in all to that one, of which it is to keep no more than
    `target`; `short`: others want places."""

    pool: str
    partition: int
    given: int
    target: int
    short: bool
    serial: int
