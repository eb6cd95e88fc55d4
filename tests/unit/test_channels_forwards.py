"""Listeners of a connection: whoever connects inside may be hostile."""

from __future__ import annotations

import asyncio
import os
import time

from pitstop_sandbox.backends.loopback import Loopback
from pitstop_sandbox.backends.port import Accepted, Tcp
from pitstop_sandbox.channels.forwards import Remote
from pitstop_sandbox.channels.pace import OPENS_A_SECOND, OPENS_AT_ONCE


async def test_a_flood_of_connections_inside_is_taken_at_a_pace() -> None:
    network, remote, came = Loopback(), Remote(), 0
    remote.listener = network.listen(Tcp("", 80))
    flood = OPENS_AT_ONCE + OPENS_A_SECOND
    dialled = [network.dial(Tcp("localhost", 80)) for _ in range(flood)]
    enough = asyncio.Event()

    async def take(accepted: Accepted) -> None:
        nonlocal came
        os.close(accepted.fd)
        came += 1
        if came == flood:
            enough.set()

    started = time.monotonic()
    serving = asyncio.ensure_future(remote.serve(take))
    async with asyncio.timeout(60):
        await enough.wait()
    assert time.monotonic() - started > 0.9, "the last of them came a second later"
    remote.close()
    await serving
    for fd in dialled:
        os.close(fd)


async def test_a_listener_that_is_closed_or_cut_off_leaves_nothing() -> None:
    for cut in (False, True):
        network, remote = Loopback(), Remote()
        ended: list[Remote] = []
        remote.listener = network.listen(Tcp("", 0))
        remote.ended = ended.append
        holding = asyncio.Event()

        async def take(accepted: Accepted, holding: asyncio.Event = holding) -> None:
            try:
                holding.set()
                await asyncio.Event().wait()
            finally:
                os.close(accepted.fd)

        before = asyncio.all_tasks()
        dialled = network.dial(Tcp("localhost", remote.get_port()))
        serving = asyncio.ensure_future(remote.serve(take))
        await holding.wait()
        if cut:
            serving.cancel()
        else:
            remote.close()
        await asyncio.wait({serving})
        assert serving.cancelled() == cut
        assert ended == [remote]
        assert asyncio.all_tasks() == before
        assert os.read(dialled, 1) == b""
        os.close(dialled)
