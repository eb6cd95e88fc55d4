"""The scheduler process: intake, logs, API, each a task of one group."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial

from pitstop_common.lifecycle import Runtime
from pitstop_common.streams import REQ, REQ_ORG
from pitstop_scheduler.admitting import Admitting
from pitstop_scheduler.api import Api
from pitstop_scheduler.api_passes import Tokens
from pitstop_scheduler.callout import Callout, key_of
from pitstop_scheduler.changes import Defaults
from pitstop_scheduler.config import Config
from pitstop_scheduler.contexts import Contexts
from pitstop_scheduler.intake import Intake
from pitstop_scheduler.keyring import read_keyring
from pitstop_scheduler.links import Links
from pitstop_scheduler.logs import Logs
from pitstop_scheduler.metrics import Metrics
from pitstop_scheduler.partition import Partition
from pitstop_scheduler.passes import Passes
from pitstop_scheduler.people import People
from pitstop_scheduler.placing import Placing
from pitstop_scheduler.policy import Policy
from pitstop_scheduler.pool_labels import read_aliases
from pitstop_scheduler.reading import Reading
from pitstop_scheduler.seats import Seats

_OBSERVE_EVERY = 0.25


async def main(runtime: Runtime, config: Config) -> None:
    """Run until told to stop."""
    bus = runtime.bus
    metrics = Metrics(runtime.metrics)
    logs = Logs(bus, config.partitions, config.snapshot_every)
    policy, passes = Policy(logs, config), Passes(bus)
    contexts = Contexts(bus, read_keyring(config.secrets_key_file), policy.admins)
    links = Links(bus, policy.ssh, contexts, config.keys_hosts)
    people = People(bus, links)
    reading = Reading(bus, logs, people, policy, contexts)
    placing = Placing(logs, reading, read_aliases(config.label_pools))
    intake = Intake(bus, people, policy, metrics, reading, contexts, placing)
    admitting = Admitting(reading, people, policy, contexts, passes)
    tokens = Tokens(passes, policy, reading, open=bool(config.callout_key))
    api = Api(bus, logs, intake, people, reading, policy, contexts, tokens, admitting, links, metrics)
    owner = f"scheduler-{secrets.token_hex(4)}"
    seats = Seats(bus, owner, config.partitions)
    partitions = [Partition(bus, log, owner, _defaults(config, log.partition), metrics, seats) for log in logs]
    owned = partial(_owned, partitions)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(seats.run(runtime.stopping))
            for partition in partitions:
                tasks.create_task(partition.run(runtime.stopping))
            tasks.create_task(intake.run(REQ, runtime.stopping, owned))
            tasks.create_task(intake.run(REQ_ORG, runtime.stopping, owned))
            for partition in partitions:
                await partition.followed.wait()
            tasks.create_task(contexts.renew_all(runtime.stopping))
            await api.serve(runtime.service)
            if config.callout_key:
                await Callout(bus, passes, key_of(config.callout_key)).serve()
            await bus.heard()  # the endpoints are heard of before anybody is told to ask
            runtime.ready()
            await _observe(metrics, logs, runtime.stopping)
    finally:
        await api.close()
        await links.close()
        await logs.close()


def _defaults(config: Config, partition: int) -> Defaults:
    return Defaults(config.org_slots, config.project_slots, config.pool_slots, partition, config.partitions)


def _owned(partitions: Sequence[Partition]) -> list[bool]:
    return [partition.owned for partition in partitions]


async def _observe(metrics: Metrics, logs: Logs, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        metrics.observe([log.state for log in logs])
        await asyncio.sleep(_OBSERVE_EVERY)
