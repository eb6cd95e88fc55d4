"""Sandbox hosts: which there are, and which are to take no new job. Orgs share them, so that takes an admin of the
deployment."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Final

import msgspec
from nats.micro.request import Request as MicroRequest

from pitstop_common import messages as m
from pitstop_common import subjects
from pitstop_common.api_hosts import HostDrainRequest, HostList, HostView
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound, Unavailable
from pitstop_common.pull import rfc3339
from pitstop_scheduler.calls import Caller, Teller, checked
from pitstop_scheduler.host import Host
from pitstop_scheduler.host_views import Sign, host_views, jobs_by_host
from pitstop_scheduler.log import Log
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading

_HEARD_WITHIN: Final = 2.0
"""Seconds in which a host that is up says that it knows."""
_TRIES: Final = 3
"""Of two who ask at once about one host, one is passed over, and asks again."""
_SHOWN: Final = 20

_decode = msgspec.json.Decoder(m.Heartbeat).decode


class Hosts:
    """The verbs about hosts."""

    def __init__(self, bus: Bus, logs: Logs, teller: Teller, reading: Reading, policy: Policy) -> None:
        self._logs, self._teller, self._reading, self._policy = logs, teller, reading, policy
        self._beats = Bucket(bus, "hosts")

    async def ls(self, caller: Caller, _: MicroRequest) -> HostList:
        """All hosts that the log knows. Raises Unavailable."""
        await self._reading.all_fresh()
        now = await self._reading.now()
        return HostList(hosts=await self._views(caller, [self._host(id) for id in self._known()], now), now=now)

    async def drain(self, caller: Caller, asked: MicroRequest) -> HostView:
        """Have a host take no new job, or jobs again. When this answers, the log gives it none (or some); `knows` says
        whether the host has heard. Raises Wrong, NotFound, Unavailable."""
        wanted = checked(asked, HostDrainRequest)
        await self._reading.all_fresh()
        if wanted.host not in self._known():
            there = ", ".join(self._known()[:_SHOWN]) or "none"
            raise NotFound(f"there is no sandbox host {wanted.host}; `pitstop hosts ls --all` shows them: {there}")
        for _ in range(_TRIES):
            if self._host(wanted.host).drained != wanted.off:
                break
            await self._tell(wanted, f"{caller.org}/{caller.actor}")
        else:
            raise Unavailable(f"others change host {wanted.host} at this moment; ask again")
        view = await self._view(caller, wanted.host)
        if view.knows or view.state in {"silent", "lost", "down"}:
            return view
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_WITHIN):
                await self._log(wanted.host).until(lambda: _knows(self._host(wanted.host)))
        return await self._view(caller, wanted.host)

    async def _tell(self, wanted: HostDrainRequest, by: str) -> None:
        fact = m.HostDrain(
            id=f"drain.{uuid.uuid4().hex}", time=rfc3339(time.time()), org=subjects.NOBODY, run=subjects.NOBODY,
            host=wanted.host, drain=not wanted.off, serial=self._host(wanted.host).drain_serial + 1, by=by,
        )  # fmt: skip
        await self._teller.tell(fact, token=self._logs.sharing(wanted.host)[0])

    async def _view(self, caller: Caller, id: str) -> HostView:
        (view,) = await self._views(caller, [self._host(id)], await self._reading.now())
        return view

    async def _views(self, caller: Caller, hosts: list[Host], now: float) -> tuple[HostView, ...]:
        signs = {}
        for name, entry in (await self._beats.scan()).items():
            with contextlib.suppress(msgspec.DecodeError):
                signs[name] = Sign(_decode(entry.value or b""), entry.stored)
        everything = self._policy.of_deployment(caller.actor)

        def sees(org: str, project: str) -> bool:
            return everything or (org == caller.org and self._policy.may_read(caller, project))

        return host_views(hosts, signs, jobs_by_host(log.state for log in self._logs), now, sees)

    def _known(self) -> list[str]:
        return sorted({host.id for log in self._logs for host in log.state.all_hosts()})

    def _host(self, id: str) -> Host:
        """As the partition has it that decides whether it is drained."""
        return self._log(id).state.host(id) or Host(id, "", "", 0)

    def _log(self, id: str) -> Log:
        return self._logs.sharing(id)[1]


def _knows(host: Host) -> bool:
    return host.knows >= host.drain_serial
