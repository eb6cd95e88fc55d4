"""What the server itself can take: small messages with an id, published and acknowledged, as fast as clients can."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
import uuid
from typing import Final

import nats
import uvloop
from nats.aio.msg import Msg
from nats.js.api import StorageType, StreamConfig

from pitstop_common.bus import Bus, inbox_prefix

STREAM: Final = "BENCH"
_SUBJECT: Final = "bench"
_BODY: Final = b"x" * 400
_WINDOW: Final = 1000
_SECONDS: Final = 60


async def make_stream(bus: Bus) -> None:
    """The stream that the messages go to; made as the product's own are."""
    await bus.js.add_stream(
        StreamConfig(name=STREAM, subjects=[_SUBJECT], storage=StorageType.FILE, duplicate_window=600.0)
    )


async def measure(url: str, messages: int, publishers: int) -> float:
    """Acknowledged messages per second, of all publisher processes together."""
    each = messages // publishers
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.ceiling", url, str(each),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(publishers)
    ]  # fmt: skip
    try:
        async with asyncio.timeout(_SECONDS):
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            begun = time.perf_counter()
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            for process in processes:
                assert await process.wait() == 0
        return each * publishers / (time.perf_counter() - begun)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _publish(url: str, count: int) -> None:
    nc = await nats.connect(url, inbox_prefix=inbox_prefix(url), pending_size=64 * 1024 * 1024)
    inbox, prefix = nc.new_inbox(), uuid.uuid4().hex
    acked = itertools.count(1)
    room, done = asyncio.Semaphore(_WINDOW), asyncio.Event()

    async def heard(msg: Msg) -> None:
        assert msg.data.startswith(b'{"stream"'), msg.data
        room.release()
        if next(acked) == count:
            done.set()

    await nc.subscribe(inbox, cb=heard)
    await nc.flush()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for number in range(count):
        await room.acquire()
        await nc.publish(_SUBJECT, _BODY, inbox, {"Nats-Msg-Id": f"{prefix}.{number}"})
    await done.wait()
    await nc.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_publish(sys.argv[1], int(sys.argv[2])))
