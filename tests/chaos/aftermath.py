"""What takes long, after the havoc: starts of jobs that ended long ago, and a host that is stopped for longer than any
liveness time.

Both need quiet: a janitor calls nobody lost whom it has not observed without a break. The services are restarted first,
with shorter times; so they remember nothing but what is stored.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from tests.chaos import evidence
from tests.chaos.load import Loader
from tests.chaos.processes import Service, System

from pitstop_common import streams
from pitstop_common.messages import SandboxLost, decode_fact
from pitstop_common.pull import read_all

_HOST: Final = {"heartbeat_interval": "0.3", "orphan_grace": "4"}
_JANITOR: Final = {"scan_interval": "0.3", "jobs_interval": "1", "host_lost_after": "7"}
"""More than the hosts' own patience, as everywhere."""
_WITHIN: Final = 60.0
_JOBS: Final = 20

Settle = Callable[..., Awaitable[tuple[float, list[str]]]]


class After(msgspec.Struct, kw_only=True):
    """What came of it."""

    wrong: list[str] = []
    old_starts: int = 0
    lost: frozenset[str] = frozenset()
    """Incarnations of hosts."""


async def aftermath(system: System, loader: Loader, settle: Settle) -> After:
    """All of it. AssertionError when something does not happen at all."""
    found = After()
    for service in system.of("sandbox"):
        await service.again(system.token, **_HOST)
    for service in system.of("janitor"):
        await service.again(system.token, **_JANITOR)
    await _old_starts(system, loader, settle, found)
    await _lost_host(system, loader, settle, found)
    return found


async def _old_starts(system: System, loader: Loader, settle: Settle, found: After) -> None:
    before = _evidence(system)
    facts = (await loader.bus.js.stream_info(streams.IN)).state.messages
    found.old_starts = await loader.all_starts_again()
    _, late = await settle(loader.bus)
    found.wrong += late
    if (ran := len(_evidence(system)) - len(before)) > 0:
        found.wrong.append(f"{ran} begins and ends of steps after starts of jobs that ended long ago")
    if (said := (await loader.bus.js.stream_info(streams.IN)).state.messages - facts) > _rooms(system):
        found.wrong.append(f"{said} facts after starts of jobs that ended long ago")


def _rooms(system: System) -> int:
    """Facts that hosts say of themselves while nothing happens: their room, once a minute."""
    return 2 * len(system.of("sandbox"))


async def _lost_host(system: System, loader: Loader, settle: Settle, found: After) -> None:
    host = system.of("sandbox")[-1]
    await loader.more("long", _JOBS, 3000, "long")
    await _until(lambda: _begun(system, host) > 0, f"a job on {host.name}")
    host.signal(signal.SIGSTOP)
    incarnation = host.ready["incarnation"]
    deadline = time.monotonic() + _WITHIN
    while incarnation not in await _called_lost(loader):
        assert time.monotonic() < deadline, f"nobody calls {host.name} lost"
        await asyncio.sleep(0.2)
    found.lost = frozenset({incarnation})
    _, late = await settle(loader.bus)  # the other host alone: the slots of the lost one are free
    found.wrong += late
    before = _begun(system, host)
    host.signal(signal.SIGCONT)
    await _until(lambda: not list((host.folder / "jobs").iterdir()), f"the end of what {host.name} held")
    for number in range(int(_WITHIN)):
        await loader.more(f"back-{number}", _JOBS, 300)
        _, late = await settle(loader.bus)
        found.wrong += late
        if late or _begun(system, host) > before:
            return
    found.wrong.append(f"{host.name} came back, and gets no work")


def _evidence(system: System) -> list[evidence.Line]:
    return evidence.read(system.folder / "evidence")


def _begun(system: System, host: Service) -> int:
    pid = host.process.pid if host.process else 0
    return sum(line.what == "begin" and line.pid == pid for line in _evidence(system))


async def _called_lost(loader: Loader) -> set[str]:
    facts = [decode_fact(item.data) for item in await read_all(loader.bus, streams.IN, "in.*.sandbox.lost.>")]
    return {fact.incarnation for fact in facts if isinstance(fact, SandboxLost) and not fact.job}


async def _until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _WITHIN
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(0.05)
