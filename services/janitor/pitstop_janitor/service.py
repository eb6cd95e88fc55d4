"""The janitor's loop: every collector in a task of its own, until the service stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from pitstop_common.lifecycle import Runtime
from pitstop_janitor.collectors import Collector
from pitstop_janitor.collectors.expiry import Expiry
from pitstop_janitor.collectors.inventory import Inventory
from pitstop_janitor.collectors.jobs import OpenJobs
from pitstop_janitor.collectors.lost_hosts import LostHosts
from pitstop_janitor.collectors.poison import Poison
from pitstop_janitor.collectors.stale_keys import StaleKeys
from pitstop_janitor.collectors.starts import Starts
from pitstop_janitor.config import JanitorConfig
from pitstop_janitor.metrics import JanitorMetrics

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 1.0
_FINISH_SECONDS: Final = 5.0
"""A pass in progress may end by itself this long after SIGTERM; repeating it elsewhere is harmless."""


async def serve(runtime: Runtime, config: JanitorConfig) -> None:
    """Returns when the service was told to stop and every collector has handed back what it held."""
    metrics = JanitorMetrics(runtime.metrics.registry)
    jobs = OpenJobs(runtime.bus)
    collectors: list[Collector] = [
        Expiry(runtime.bus, metrics, runtime.metrics.messages),
        LostHosts(runtime.bus, metrics, config),
        Starts(runtime.bus, metrics, config, jobs),
        Inventory(runtime.bus, metrics, config, jobs),
        StaleKeys(runtime.bus, metrics, config, jobs),
        Poison(runtime.bus, metrics, runtime.metrics.messages),
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(tend(one, metrics, runtime.stopping), name=one.name) for one in collectors]
        runtime.ready()
        await runtime.stopping.wait()
        _, late = await asyncio.wait(tasks, timeout=_FINISH_SECONDS)
        for task in late:
            task.cancel()


async def tend(collector: Collector, metrics: JanitorMetrics, stopping: asyncio.Event) -> None:
    """Run the passes of one collector until told to stop. Its failures are counted and said, and end nothing."""
    metrics.errors.labels(collector.name)
    failing = False
    try:
        while not stopping.is_set():
            try:
                await one_pass(collector, metrics, stopping)
                if failing:
                    log.info("%s works again", collector.name)
                failing = False
            except Exception as error:
                metrics.errors.labels(collector.name).inc()
                level, failing = logging.DEBUG if failing else logging.WARNING, True  # an outage is said once
                log.log(level, "%s failed and is tried again: %s", collector.name, error or type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_AGAIN_SECONDS):
                        await stopping.wait()
    finally:
        with contextlib.suppress(Exception):
            await collector.close()


async def one_pass(collector: Collector, metrics: JanitorMetrics, stopping: asyncio.Event) -> None:
    """Wait for a cause, unless the service stops first; then one pass."""
    if await _first(collector, stopping):
        started = time.monotonic()
        swept = await collector.sweep()
        metrics.sweep.labels(collector.name).observe(time.monotonic() - started)
        metrics.seen.labels(collector.name).set(swept.seen)
        if swept.freed:
            log.info("%s: %d seen, %d freed", collector.name, swept.seen, swept.freed)
    metrics.last_success.labels(collector.name).set_to_current_time()


async def _first(collector: Collector, stopping: asyncio.Event) -> bool:
    """Is a pass due? False when the service stops before."""
    due = asyncio.ensure_future(collector.due())
    stop = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({due, stop}, return_when=asyncio.FIRST_COMPLETED)
        return due.result() if due.done() else False
    finally:
        for task in (due, stop):
            task.cancel()
        await asyncio.gather(due, stop, return_exceptions=True)
