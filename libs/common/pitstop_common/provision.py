"""Makes every stream and bucket exist. Idempotent: any service may be the first to run it."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final

from nats.errors import Error as NatsError
from nats.js.api import StreamConfig
from nats.js.errors import APIError, NotFoundError

from pitstop_common.bus import Bus
from pitstop_common.errors import ConfigError, Unavailable
from pitstop_common.streams import IN, buckets, partitions_of, streams

log = logging.getLogger(__name__)

OLDEST_SERVER: Final = (2, 12)
_IN_USE: Final = 10058
_NO_PEERS: Final = 10005
"""So many replicas need so many servers; those of a cluster that is starting come one by one."""


async def provision(bus: Bus, *, partitions: int = 1, replicas: int = 1, patience: float = 20.0) -> None:
    """Make what is missing and leave alone what is there. Raises ConfigError for an old server or an existing stream
    of another shape (it names both), Unavailable when JetStream does not answer within `patience` seconds."""
    check_server(str(bus.nc.connected_server_version))
    for config in [*streams(partitions, replicas), *buckets(replicas)]:
        await _ensure(bus, config, patience)


def check_server(version: str) -> None:
    """Raises ConfigError when the server is older than what message schedules need."""
    found = re.search(r"(\d+)\.(\d+)", version)
    if not found or tuple(map(int, found.groups())) < OLDEST_SERVER:
        raise ConfigError(
            f"NATS server {version} is too old: Pitstop needs {OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer"
            " (message schedules). Upgrade the server, or let `pitstop up` start its own."
        )


async def _ensure(bus: Bus, config: StreamConfig, patience: float) -> None:
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            try:
                info = await bus.js.stream_info(str(config.name))
            except NotFoundError:
                info = await bus.js.add_stream(config)
            _compare(config, info.config)
            return
        except APIError as error:
            if error.err_code not in (_IN_USE, _NO_PEERS) and (error.code or 0) != 503:
                raise ConfigError(f"cannot make stream {config.name}: {error.description}") from error
            failure: Exception = error
        except (TimeoutError, NatsError) as error:
            failure = error
        if asyncio.get_running_loop().time() > deadline:
            raise Unavailable(f"JetStream does not answer for stream {config.name}: {failure}")
        await asyncio.sleep(0.2)


def _compare(wanted: StreamConfig, found: StreamConfig) -> None:
    if sorted(wanted.subjects or []) != sorted(found.subjects or []):
        raise ConfigError(
            f"stream {wanted.name} is there with subjects {found.subjects}, not {wanted.subjects}: another version of"
            " Pitstop, or another program, made it. Use another NATS account, or remove that stream."
        )
    if wanted.name == IN and partitions_of(found) != partitions_of(wanted):
        there, asked = partitions_of(found), partitions_of(wanted)
        raise ConfigError(
            f"PITSTOP_PARTITIONS is {asked}, and this deployment has {there}: the number is a constant, because each"
            f" org's history lies in its partition. Set PITSTOP_PARTITIONS={there} for every service. To change it"
            " (a new IN and a drain): take no more requests, wait until all runs have ended and ten minutes more, stop"
            " all services, remove the streams IN, DEC, SNAP and KV_owners, start with the new number, and apply the"
            " limits of the orgs again."
        )
