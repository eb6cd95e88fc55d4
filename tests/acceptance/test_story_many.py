"""Several of each service at once, by `pitstop serve` beside a `pitstop up`; and who answers when asked (row E8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, outside, running
from tests.cli_system import PITSTOP
from tests.patience import PATIENCE
from tests.screens import Screen
from tests.whole_system import wait_until

from pitstop_common.embedded import die_with_parent

SERVICES = ("scheduler", "sandbox", "relay", "janitor")


@contextlib.contextmanager
def another(place: Place, name: str, **settings: str) -> Iterator[dict[str, Any]]:
    """A second process of a service, in a folder of its own, until the end of the block. Gives its ready line."""
    folder = place.home.folder / f"second-{name}"
    folder.mkdir()
    ready = folder / "ready.json"
    tls = place.home.dir / "tls"
    side = "relay" if name == "relay" else "host"
    env = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PITSTOP_NATS_URL": place.url(name),
        "PITSTOP_DIR": str(folder / "state"), "PITSTOP_READY_FILE": str(ready), "PITSTOP_TLS_CA": str(tls / "ca.pem"),
        "PITSTOP_TLS_CERT": str(tls / f"{side}.pem"), "PITSTOP_TLS_KEY": str(tls / f"{side}.key"), **settings,
    }  # fmt: skip
    (folder / "state").mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PITSTOP, "serve", name], env=env, stderr=log, preexec_fn=die_with_parent)
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, PATIENCE)
        assert process.poll() is None, (folder / "log").read_text()
        yield json.loads(ready.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(35) == 0, (folder / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with running(tmp_path, "--slots", "2", "--org-slots", "4") as made:
        yield made


async def pinged(anybody: Outside, count: int) -> Counter[str]:
    """Who answers the NATS service protocol's PING, by name: so many, and whoever else does within a second."""
    names: Counter[str] = Counter()
    inbox = anybody.bus.nc.new_inbox()
    heard = await anybody.bus.nc.subscribe(inbox)
    await anybody.bus.nc.publish("$SRV.PING", b"", inbox)
    with contextlib.suppress(TimeoutError):
        while True:
            patience = PATIENCE if names.total() < count else 1
            names[json.loads((await heard.next_msg(timeout=patience)).data)["name"]] += 1
    await heard.unsubscribe()
    return names


async def test_several_of_each_share_the_work_and_each_answers_for_itself(place: Place) -> None:
    at = place.facts["ssh"]
    host = {
        "PITSTOP_CAPACITY": "2", "PITSTOP_JOBS_AT_STOP": "end", "PITSTOP_SSH_PUBLIC": f"{at['host']}:{at['port']}",
        "PITSTOP_SANDBOX_UIDS": "212000-212099",
    }  # fmt: skip
    host_key = str(place.home.dir / "relay" / "ssh_host_ed25519_key")
    with contextlib.ExitStack() as stack:
        stack.enter_context(another(place, "scheduler", PITSTOP_ORG_SLOTS="4"))
        stack.enter_context(another(place, "janitor"))
        stack.enter_context(another(place, "sandbox", **host))
        relay = stack.enter_context(
            another(place, "relay", PITSTOP_SSH_LISTEN="127.0.0.1:0", PITSTOP_SSH_HOST_KEY=host_key)
        )
        async with outside(place) as anybody:
            assert await pinged(anybody, 2 * len(SERVICES)) == {f"pitstop-{name}": 2 for name in SERVICES}
            runs = [
                await anybody.request("true", ssh={"pause": "at_end", "keys": [place.person().public]})
                for _ in range(4)
            ]
            for run in runs:
                await run.paused()
            entries = [await run.entry() for run in runs]
            assert Counter(entry["job"]["host"] for entry in entries).most_common(1)[0][1] == 2
            for run in runs:
                assert (await run.ssh("echo", "in")).out == "in\n"
                await through(place, relay["ssh"]["port"], run.job)
                await run.cancel()
                assert await run.finished() in {"success", "cancellation"}


async def test_a_relay_that_is_stopped_waits_for_its_people_and_another_has_their_shell(place: Place) -> None:
    host_key = str(place.home.dir / "relay" / "ssh_host_ed25519_key")
    settings = {"PITSTOP_SSH_LISTEN": "127.0.0.1:0", "PITSTOP_SSH_HOST_KEY": host_key, "PITSTOP_DRAIN_TIMEOUT": "600"}
    async with outside(place) as anybody:
        run = await anybody.request("true", ssh={"pause": "at_end", "keys": [place.person().public]})
        await run.paused()
        with another(place, "relay", **settings) as relay:
            first = Screen(elsewhere(place, relay["ssh"]["port"], run.job), 80, 24)
            try:
                await first.until(PROMPT)
                os.kill(relay["pid"], signal.SIGTERM)
                await first.until("this relay will end in 600 s at the latest")
                first.type("HELD=teal; echo st''ill here\n")
                await first.until("still here")
                refused = await asyncio.create_subprocess_exec(*elsewhere(place, relay["ssh"]["port"], run.job), "true")
                assert await refused.wait() == 255
                os.kill(relay["pid"], signal.SIGTERM)
                await first.until("Your shell goes on")
                assert await first.ended() == 255
            finally:
                first.close()
        with run.shell() as second:
            await second.until("back in the shell you left")
            second.type("echo held=$HELD; exit\n")
            await second.until("held=teal")
            await second.ended()
        assert await run.finished() == "success"


def elsewhere(place: Place, port: int, job: str) -> list[str]:
    """The command line for another relay, with the same host key."""
    args = place.ssh_args(job, "-o", "HostKeyAlias=any", "-o", "StrictHostKeyChecking=no")
    args[args.index("-p") + 1] = str(port)
    return args


async def through(place: Place, port: int, job: str) -> None:
    """The other relay lets the same person into the same job."""
    process = await asyncio.create_subprocess_exec(
        *elsewhere(place, port, job), "echo", "through", stdout=subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, out) == (0, b"through\n")
