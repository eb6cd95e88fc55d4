#!/usr/bin/env python3
"""Ask Pitstop for a run, from any program: one JSON message on the NATS subject `run.requested`.

Needs nothing of Pitstop, only `pip install nats-py`. Prints the id of the run. Copy what you need.

    python publish.py --nats URL --org acme --project clock --actor ada clock.yml \\
        --git https://example.org/clock.git --sha … --pause on_failure --key ~/.ssh/id_ed25519.pub
"""

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import nats
from nats.aio.msg import Msg

SECONDS = 10.0


def request(options: argparse.Namespace) -> dict[str, Any]:
    """The body. Only `org`, `project`, and `workflow` (or `steps`) have to be there."""
    body: dict[str, Any] = {
        "id": options.id,  # the same id again starts nothing new
        "org": options.org,
        "project": options.project,
        "actor": options.actor,
        "workflow": options.workflow.read_text(),
    }
    if options.git:
        body["source"] = {"git": options.git, "sha": options.sha}
    if options.pause:
        body["ssh"] = {"pause": options.pause, "keys": [key.read_text().strip() for key in options.key]}
        wanted = {"step": options.step, "idle_timeout": options.idle_timeout}
        body["ssh"] |= {name: value for name, value in wanted.items() if value is not None}
    return body


async def publish(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Publish the request; returns the event that answers it. TimeoutError when none comes."""
    answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def hear(message: Msg) -> None:
        event = json.loads(message.data)
        if event["request"] == body["id"] and not answer.done():
            answer.set_result(event)

    async def quiet(_error: Exception) -> None:
        """What goes wrong is told once, at the end."""

    client = await nats.connect(url, allow_reconnect=False, max_reconnect_attempts=1, error_cb=quiet)
    try:
        for subject in ("run.queued", "run.duplicate", "run.rejected"):
            await client.subscribe(subject, cb=hear)
        # JetStream answers when the message is stored: from then on it cannot be lost.
        await client.jetstream().publish("run.requested", json.dumps(body).encode())
        async with asyncio.timeout(SECONDS):
            return await answer
    finally:
        await client.close()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Ask Pitstop for a run; prints its id.")
    parser.add_argument("workflow", type=Path, help="a workflow file")
    parser.add_argument("--nats", required=True, metavar="URL", help="with a credential that may publish")
    parser.add_argument("--org", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--actor", default="", help="whose run it is: this person may enter it")
    parser.add_argument("--id", default=str(uuid.uuid4()), help="[default: a new one]")
    parser.add_argument("--git", metavar="URL", help="what `actions/checkout` takes")
    parser.add_argument("--sha", default="", help="the commit of it")
    parser.add_argument("--pause", choices=["after_step", "before_step", "on_failure", "at_end"])
    parser.add_argument("--step", type=int, help="for after_step and before_step, counted from 1")
    parser.add_argument("--key", type=Path, action="append", default=[], metavar="FILE", help="a public key to let in")
    parser.add_argument("--idle-timeout", type=float, metavar="SECONDS")
    return parser.parse_args()


def main() -> int:
    """Exit code 0: the run is queued (or was before); 1: rejected; 3: no answer."""
    options = arguments()
    try:
        event = asyncio.run(publish(options.nats, request(options)))
    except (OSError, nats.errors.Error, TimeoutError) as error:
        print(f"no answer from Pitstop ({error!r}). Does it run, and is the URL right?", file=sys.stderr)
        return 3
    if event["type"] == "run.rejected":
        for fault in event["errors"]:
            print(f"rejected: {fault['pointer']}: {fault['message']}", file=sys.stderr)
        return 1
    print(event["run"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
