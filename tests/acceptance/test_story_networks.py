"""Sandbox hosts on machines of their own, which only dial out: behind a firewall, behind a NAT, with the cable pulled
for a while, and for good. Real services, real namespaces, nftables and ssh."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from tests.netns import Machine, networks
from tests.patience import PATIENCE
from tests.screens import Screen
from tests.wide_system import HOSTS, HTTP_PORT, Wide

CUT_FOR: Final = 20.0
"""Seconds without a cable."""
GRACE, LOST_AFTER = "27", "31"
"""As 90 s and 120 s: a host without NATS ends its jobs before others call it lost."""
STEPS: Final = """
      - run: |
          echo made here > proof
          python3 -m http.server 8000 --bind 127.0.0.1 >served 2>&1 &
      - run: cat proof; test "$(cat brought)" = "by sftp"
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.mark.timeout(300)  # most of a minute is an outage; the rest is as slow as the machine
def test_hosts_that_only_dial_out(tmp_path: Path) -> None:
    with networks() as made:
        wide = Wide(made, tmp_path)
        wide.hub.call(lambda: asyncio.run(story(wide)))


async def story(wide: Wide) -> None:
    """All at once: an outage takes its time."""
    watchful = {"heartbeat_interval": "0.5", "orphan_grace": GRACE}
    hosts = dict.fromkeys(HOSTS, watchful)
    hosts["far"] = {**watchful, "orphan_grace": "3600"}  # one that does not see to it itself
    janitor = {"scan_interval": "0.5", "jobs_interval": "0.5", "host_lost_after": LOST_AFTER,
               "inventory_interval": "0.5", "inventory_grace": "1"}  # fmt: skip
    async with wide.running(janitor, hosts):
        lost = await wide.ask("run", id="far", org="acme", project="web", retry="infrastructure",
                              workflow=workflow("far", "\n      - run: sleep 600\n"))  # fmt: skip
        await nobody_gets_in(wide)
        await until(lambda: status(wide, lost["run"], "running"))
        wide.networks.pull("far")
        async with asyncio.TaskGroup() as group:
            group.create_task(lost_and_found(wide, lost["run"]))
            group.create_task(cable(wide))
            for name in ("walled", "natted"):
                group.create_task(visit(wide, name))


async def visit(wide: Wide, name: str) -> None:
    """A run that pauses, and everything a person does there, through the relay."""
    run, job = await paused(wide, name)
    code, out, err = await patiently(wide, [*wide.ssh(job), "cat proof; hostname; id -u"])
    assert (code, out.splitlines()[0]) == (0, "made here"), err
    (wide.folder / f"{name}.txt").write_text("by sftp\n")
    batch = f"put {wide.folder / f'{name}.txt'} brought\nget proof {wide.folder / f'{name}.proof'}\n"
    code, _, err = await patiently(wide, wide.ssh(job, "-b", "-", program="sftp"), batch)
    assert (code, (wide.folder / f"{name}.proof").read_text()) == (0, "made here\n"), err
    await forwarded(wide, job, 8100 + list(HOSTS).index(name))
    await patiently(wide, [*wide.ssh(job), "continue"])
    await until(lambda: status(wide, run, "finished"))
    found = await wide.job(run)
    assert (found["result"], found["host"]) == ("success", name)


async def patiently(wide: Wide, command: list[str], stdin: str = "") -> tuple[int, str, str]:
    """As a person does who is told to try again in a moment, because a machine is slow."""
    async with asyncio.timeout(PATIENCE):
        while True:
            code, out, err = await wide.does(command, stdin)
            if code != 255 or "again in a moment" not in err:
                return code, out, err


async def forwarded(wide: Wide, job: str, port: int) -> None:
    """A file of the job's server comes through a port of the person's machine."""
    forward = wide.ssh(job, "-N", "-L", f"{port}:127.0.0.1:8000", "-o", "ExitOnForwardFailure=yes")
    async with asyncio.timeout(PATIENCE):
        while True:
            tunnel = await asyncio.create_subprocess_exec(*forward, stdin=asyncio.subprocess.DEVNULL)
            try:
                while tunnel.returncode is None:
                    if await fetched(wide, port):
                        return
            finally:
                with contextlib.suppress(ProcessLookupError):
                    tunnel.terminate()
                await tunnel.wait()


async def nobody_gets_in(wide: Wide) -> None:
    """From the hub to a port where each host listens: only one can be reached, and all of them work."""
    assert await asyncio.to_thread(reached, wide.hub, "plain")
    for name in ("walled", "natted"):
        assert not await asyncio.to_thread(reached, wide.hub, name)
        assert await asyncio.to_thread(reached, wide.hosts[name], name)  # on its own machine it does listen


def reached(machine: Machine, name: str) -> bool:
    def connect() -> bool:
        try:
            socket.create_connection((HOSTS[name], HTTP_PORT), timeout=1).close()
        except OSError:
            return False
        return True

    return machine.call(connect)


async def cable(wide: Wide) -> None:
    """The cable of a host is out for a while: its shell goes on, its job does, and nobody calls it lost."""
    run, job = await paused(wide, "plain")
    await patiently(wide, [*wide.ssh(job), "true"])  # the way there stands
    shell = Screen(wide.ssh(job, "-tt"), 80, 24)
    try:
        shell.type("mark=kept; (while sleep 1; do echo >> ticks; done) & clear; echo rea''dy\n")
        await shell.until("ready")
        wide.networks.pull("plain")
        back = asyncio.create_task(put_back(wide, "plain"))
        assert "host went away" in await shell.until("connect again")
        await shell.ended()
    finally:
        shell.close()
    code, _, err = await wide.does([*wide.ssh(job), "true"])
    assert back.done() or (code == 255 and "the host plain of job" in err)
    await back
    await until(lambda: host_is(wide, "plain", "up"))
    again = await back_in(wide, job)
    try:
        await again.until("ready")  # what it showed last
        again.type("echo the mark is $mark, and $(( $(wc -l < ticks) >= 15 ))\n")
        await again.until("the mark is kept, and 1")
        again.type("kill %1; exit\n")
        await again.ended()
    finally:
        again.close()
    found = await wide.job(run)
    assert (found["attempt"], found["earlier"], found["host"]) == (1, [], "plain")
    assert "host plain" not in wide.words("janitor")


async def back_in(wide: Wide, job: str) -> Screen:
    """A person's terminal, who was told to connect again in a moment, and does so until it works. (A heartbeat that lay
    in the old connection may come before the new one stands: for a moment the host is up and does not answer.)"""
    told = []
    async with asyncio.timeout(PATIENCE):
        while True:
            shell = Screen(wide.ssh(job, "-tt"), 80, 24)
            while shell.client.poll() is None:
                if b"ready" in shell.text:
                    return shell
                await asyncio.sleep(0.1)
            told.append(shell.text.decode(errors="replace"))
            shell.close()
            assert "pitstop: " in told[-1], told


async def put_back(wide: Wide, name: str) -> None:
    await asyncio.sleep(CUT_FOR)
    wide.networks.put_back(name)


async def lost_and_found(wide: Wide, run: str) -> None:
    """The cable of a host is out for too long: its job is lost, and queued once more. When the host comes back with the
    first attempt still running, that one is killed, and what it says changes nothing; the second one runs there."""
    await until(lambda: host_is(wide, "far", "silent"))
    await until(lambda: status(wide, run, "queued"))
    job = await wide.job(run)
    assert (job["attempt"], job["earlier"]) == (1, ["host_lost"])
    assert (await wide.host("far"))["state"] == "lost"
    told = await wide.ask("status", run=run)
    assert told["jobs"][0]["reason"] == "no sandbox host of pool far is up"
    wide.networks.put_back("far")
    await until(lambda: status(wide, run, "running"))
    assert ((await wide.job(run))["attempt"], (await wide.host("far"))["state"]) == (2, "up")
    await until(lambda: ended(wide, "far", f"{job['job']}.1"))
    await until(lambda: running(wide, "far", 1))
    assert f"nothing is left of attempt {job['job']}.2" not in wide.words("far")
    await wide.ask("cancel", run=run)
    await until(lambda: status(wide, run, "finished"))
    found = await wide.job(run)
    assert (found["attempt"], found["result"], found["earlier"]) == (2, "cancellation", ["host_lost"])


def workflow(pool: str, steps: str) -> str:
    return f"jobs:\n  build:\n    runs-on: [self-hosted, wide, {pool}]\n    steps:{steps}"


async def paused(wide: Wide, name: str) -> tuple[str, str]:
    """A run on a host that waits behind its first step, for whoever has the key. Its id, and its job's."""
    key = (wide.folder / "ada.pub").read_text().strip()
    made = await wide.ask("run", id=name, org="acme", project="web", workflow=workflow(name, STEPS),
                          ssh={"pause": "after_step", "step": 1, "keys": [key]})  # fmt: skip
    await until(lambda: status(wide, made["run"], "paused"))
    return made["run"], made["jobs"]["build"]


async def status(wide: Wide, run: str, wanted: str) -> bool:
    return bool((await wide.job(run))["status"] == wanted)


async def host_is(wide: Wide, name: str, state: str) -> bool:
    return bool((await wide.host(name))["state"] == state)


async def ended(wide: Wide, name: str, attempt: str) -> bool:
    return f"nothing is left of attempt {attempt}" in wide.words(name)


async def running(wide: Wide, name: str, jobs: int) -> bool:
    return bool((await wide.host(name))["running"] == jobs)


async def fetched(wide: Wide, port: int) -> bool:
    """Does a file of the job's server come through the person's end of a forward."""
    script = f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/proof', timeout=5).read().decode())"
    code, out, _ = await wide.does(wide.person.enter("python3", "-c", script))
    return code == 0 and out.strip() == "made here"


async def until(look: Callable[[], Awaitable[Any]]) -> None:
    """Wait for a state: an outage, and then the usual patience."""
    async with asyncio.timeout(PATIENCE + float(LOST_AFTER)):
        while not await look():
            await asyncio.sleep(0.1)
