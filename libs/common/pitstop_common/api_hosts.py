"""The bodies of the API's verbs about sandbox hosts."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

HostState = Literal["up", "draining", "drained", "stopping", "silent", "lost", "down"]


class HostDrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Have a host take no new job, or (`off`) take jobs again. Hosts are shared by orgs, so it takes an admin of the
    deployment."""

    host: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    off: bool = False


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """A sandbox host. `state`: up; draining (it takes no new job, some still run), drained (nothing is left on it);
    stopping; silent (no sign of life for 15 s), lost (none for so long that its jobs were given up), down (it left).
    `capacity`: jobs at once; `free`: how many more it would take now; `running`: jobs of all orgs that it has; `jobs`:
    those that the caller may see. `last_seen`: seconds since the epoch, by the server's clock. `drained`: it was told
    to take no new job, by `drained_by`; `knows`: it has heard the last word about that."""

    host: str
    state: HostState
    pool: str
    labels: tuple[str, ...]
    backend: str
    version: str
    capacity: int
    free: int
    running: int
    jobs: tuple[str, ...]
    last_seen: float
    drained: bool
    drained_by: str = ""
    knows: bool = True


class HostList(msgspec.Struct, frozen=True, kw_only=True):
    """All hosts that the log knows, by pool and name. `now`: the server's clock, seconds since the epoch."""

    hosts: tuple[HostView, ...]
    now: float
