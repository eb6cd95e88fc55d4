"""The scheduler process: intake, log, API, each a task of one group."""

from __future__ import annotations

import asyncio
import secrets

from pitstop_common.lifecycle import Runtime
from pitstop_common.streams import REQ, REQ_ORG
from pitstop_scheduler.api import Api
from pitstop_scheduler.changes import Defaults
from pitstop_scheduler.config import Config
from pitstop_scheduler.intake import Intake
from pitstop_scheduler.log import Log
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.partition import Partition
from pitstop_scheduler.people import People
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.reading import Reading


async def main(runtime: Runtime, config: Config) -> None:
    """Run until told to stop."""
    bus = runtime.bus
    metrics = Metrics(runtime.metrics)
    people = People(bus)
    log = Log(bus, partition=0, snapshot_every=config.snapshot_every)
    policy = Policy(log, config)
    reading = Reading(bus, log, people, policy)
    intake = Intake(bus, people, policy, metrics, reading)
    defaults = Defaults(config.org_slots, config.project_slots, config.pool_slots)
    partition = Partition(bus, log, f"scheduler-{secrets.token_hex(4)}", defaults, metrics)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(partition.run(runtime.stopping))
            tasks.create_task(intake.run(REQ, runtime.stopping))
            tasks.create_task(intake.run(REQ_ORG, runtime.stopping))
            await partition.followed.wait()
            await Api(bus, log, intake, people, reading, policy).serve(runtime.service)
            await bus.nc.flush()  # the endpoints are heard of before anybody is told to ask
            runtime.ready()
    finally:
        await log.close()
