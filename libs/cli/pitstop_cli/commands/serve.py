"""`pitstop serve`: one service, in this process, with this environment."""

from __future__ import annotations

import os
import sys

import click

from pitstop_cli.durations import seconds
from pitstop_cli.exits import USAGE, Failure

_SERVICES = ("scheduler", "sandbox", "relay", "janitor")


@click.command("serve")
@click.argument("service", type=click.Choice(_SERVICES))
@click.option("--drain-timeout", callback=seconds, metavar="TIME",
              help="relay: when told to stop, how long people may go on: 10m.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), help="relay: processes that share its port.")
def command(service: str, drain_timeout: float | None, workers: int | None) -> None:
    """Run one service against any NATS.

    Settings come from the environment (PITSTOP_…); each service's README lists its own. PITSTOP_NATS_URL is needed.
    SIGTERM drains.
    """
    if drain_timeout is not None:
        if service != "relay":
            raise Failure("--drain-timeout is for the relay: only it has people to wait for", code=USAGE)
        os.environ["PITSTOP_DRAIN_TIMEOUT"] = str(drain_timeout)
    if workers is not None:
        if service != "relay":
            raise Failure("--workers is for the relay; of the others start several", code=USAGE)
        os.environ["PITSTOP_RELAY_WORKERS"] = str(workers)
    if not os.environ.get("PITSTOP_NATS_URL"):
        raise Failure(
            "PITSTOP_NATS_URL is not set: a service needs a NATS server with JetStream",
            next=f"PITSTOP_NATS_URL=nats://user:password@host:4222 pitstop serve {service}"
            "   (or `pitstop up`, which starts a server and everything)",
            code=USAGE,
        )
    os.execv(sys.executable, [sys.executable, "-m", f"pitstop_{service}"])
