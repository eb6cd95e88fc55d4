#!/usr/bin/env python3
"""Hear what Pitstop does, from any program: NATS subjects with plain names, one JSON object a message.

Needs nothing of Pitstop, only `pip install nats-py`. Copy what you need.

    python listen.py --nats URL                          everything
    python listen.py --nats URL job.paused run.finished  only these
"""

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

NAMES = (
    "run.requested", "run.rejected", "run.duplicate", "run.queued", "run.started", "run.finished",
    "sandbox.ready", "sandbox.failed", "sandbox.lost", "job.claimed", "job.paused", "job.resumed", "job.finished",
    "step.started", "step.finished", "ssh.connected", "ssh.denied", "ssh.closed",
    "session.expiring", "session.extended", "session.expired",
)  # fmt: skip


@contextlib.asynccontextmanager
async def listening(
    url: str, names: Sequence[str], hear: Callable[[str, dict[str, Any]], None]
) -> AsyncIterator[Client]:
    """`hear` gets the subject and the object of each message, for the length of a block."""

    async def received(message: Msg) -> None:
        hear(message.subject, json.loads(message.data))

    async def wrong(error: Exception) -> None:
        print(f"NATS: {error!r}", file=sys.stderr)

    client = await nats.connect(url, error_cb=wrong)
    try:
        for name in names:
            await client.subscribe(name, cb=received)
        await client.flush()  # the server knows of every subscription: nothing is missed from here on
        yield client
    finally:
        await client.close()


async def main() -> None:
    """Print one line a message until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Print what Pitstop does.")
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help="[default: all]")
    parser.add_argument("--nats", required=True, metavar="URL", help="with a credential that may subscribe")
    options = parser.parse_args()
    async with listening(options.nats, options.names, lambda name, event: print(name, json.dumps(event), flush=True)):
        print("listening; Ctrl-C ends it", file=sys.stderr, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(130)
