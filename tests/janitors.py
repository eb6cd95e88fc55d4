"""Real janitors inside a test's own process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.patience import PATIENCE

from pitstop_common.embedded import EmbeddedServer
from pitstop_common.lifecycle import Runtime
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.service import serve


@contextlib.asynccontextmanager
async def janitor(server: EmbeddedServer, *, user: str = "", **settings: Any) -> AsyncIterator[Runtime]:
    """One that works for the length of a block, and ends as at SIGTERM."""
    config = JanitorConfig(nats_url=server.url(user), **settings)
    runtime = Runtime("janitor", config)
    async with runtime.started():
        serving = asyncio.create_task(serve(runtime, config))
        await eventually(lambda: value(runtime, "pitstop_ready") == 1 or serving.done())
        try:
            yield runtime
        finally:
            runtime.stop()
            await asyncio.wait_for(serving, PATIENCE)


async def eventually(holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for a state. AssertionError when it does not come."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not holds():
        assert loop.time() < deadline, "the state did not come"
        await asyncio.sleep(0.01)


def value(runtime: Runtime, name: str, **labels: str) -> float:
    """A metric now; 0 when it has no such series. `pitstop_janitor_` may be left out of the name."""
    full = name if name.startswith("pitstop_") else f"pitstop_janitor_{name}"
    return runtime.metrics.registry.get_sample_value(full, labels) or 0.0


def total(runtime: Runtime, name: str) -> float:
    """A metric now, over all its labels."""
    full = f"pitstop_janitor_{name}"
    return sum(
        sample.value
        for family in runtime.metrics.registry.collect()
        for sample in family.samples
        if sample.name == full
    )
