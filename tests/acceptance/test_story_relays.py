"""Several relays with several workers each: any of them serves any job, and their deaths cost nobody a shell."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, Run, outside, running
from tests.acceptance.test_story_kills import kill
from tests.acceptance.test_story_shells import BACK, pid_of
from tests.patience import PATIENCE
from tests.screens import Screen
from tests.whole_system import page, wait_until

from pitstop_common.embedded import die_with_parent

HANDED_OVER_WITHIN = 30.0
MOST = 20
"""People. That all of them meet the same one of two workers is a chance of one in half a million."""


class Relay:
    """`pitstop serve relay --workers 2`, beside the one of `pitstop up`."""

    def __init__(self, place: Place, folder: Path, *options: str) -> None:
        tls = place.home.dir / "tls"
        self.ready_file = folder / "ready"
        self.known_hosts = folder / "known_hosts"
        env = {
            "PATH": os.environ["PATH"], "PITSTOP_NATS_URL": place.url("relay"), "PITSTOP_DIR": str(folder),
            "PITSTOP_READY_FILE": str(self.ready_file), "PITSTOP_SSH_LISTEN": "127.0.0.1:0",
            "PITSTOP_TLS_CA": str(tls / "ca.pem"), "PITSTOP_TLS_CERT": str(tls / "relay.pem"),
            "PITSTOP_TLS_KEY": str(tls / "relay.key"), "PITSTOP_SSH_HOST_KEY": str(folder.parent / "host_key"),
        }  # fmt: skip
        folder.mkdir()
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).parent / "pitstop"), "serve", "relay", "--workers", "2", *options],
                env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
            )  # fmt: skip
        wait_until(self.ready_file.exists, PATIENCE)
        self.known_hosts.write_text(self.ready["ssh"]["known_hosts"] + "\n")

    @property
    def ready(self) -> dict[str, Any]:
        """What it said when all its workers were ready, last."""
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    @property
    def options(self) -> tuple[str, ...]:
        """For a client that is to come here."""
        return ("-p", str(self.ready["ssh"]["port"]), "-o", f"UserKnownHostsFile={self.known_hosts}")

    def count(self, name: str, worker: int) -> float:
        """A metric of one worker, from the one page of all."""
        for line in page(f"{self.ready['http']}/metrics").splitlines():
            if line.startswith(f'{name}{{worker="{worker}"}} '):
                return float(line.rpartition(" ")[2])
        return 0.0

    async def stopped(self) -> float:
        """Seconds from SIGTERM until it has let everybody go and ended."""
        told = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.process.wait, 60) == 0
        return time.monotonic() - told

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        assert self.process.wait(35) == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("relays"), "--slots", "8") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


class Crew:
    """People, each with one shell in the same job."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.screens: dict[str, Screen] = {}
        self.pids: dict[str, str] = {}
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    async def enter(self, name: str, options: tuple[str, ...]) -> None:
        """A first time: a new shell. Later: the one that was left."""
        person = self.run.outside.place.person(name)
        screen = self._open.enter_context(self.run.shell(options=options, person=person))
        self.screens[name] = screen
        await screen.until(BACK if name in self.pids else PROMPT)
        if name in self.pids:
            screen.type("\n")
            await screen.until(PROMPT)
        pid = await pid_of(screen)
        assert self.pids.setdefault(name, pid) == pid, "the same shell"

    async def cut(self, count: int) -> list[str]:
        """Who is thrown out, once so many are."""
        async with asyncio.timeout(PATIENCE):
            while True:
                gone = [name for name, screen in self.screens.items() if screen.client.poll() is not None]
                if len(gone) >= count:
                    return gone
                await asyncio.sleep(0.02)


async def test_workers_and_relays_die_and_nobody_loses_a_shell(anybody: Outside, tmp_path: Path) -> None:
    names = [f"person{number}" for number in range(MOST)]
    for name in names:
        await anybody.api("keys-add", {"key": anybody.place.person(name).public}, actor=name)
    run = await anybody.request("true", ssh={"pause": "after_step", "step": 1, "users": names})
    await run.paused()
    one = Relay(anybody.place, tmp_path / "one")
    two = Relay(anybody.place, tmp_path / "two", "--drain-timeout", "4s")
    try:
        with Crew(run) as crew:
            await _a_worker_is_killed(crew, names, one)
            await _a_relay_is_drained(crew, two, one)
            await _a_relay_is_stopped(crew, one)
            for screen in crew.screens.values():
                screen.type("exit\n")
                await screen.ended()
        await run.finished()
    finally:
        one.end()
        two.end()


async def _a_worker_is_killed(crew: Crew, names: list[str], relay: Relay) -> None:
    waiting = iter(names)
    while len(crew.screens) < 3 or min(relay.count("pitstop_relay_sessions", number) for number in (1, 2)) == 0:
        await crew.enter(next(waiting), relay.options)
    before = {worker["worker"]: worker["pid"] for worker in relay.ready["workers"]}
    assert relay.count("pitstop_relay_links", 1) == relay.count("pitstop_relay_links", 2) == 1
    assert len({tuple(worker["link"]) for worker in relay.ready["workers"]}) == 2, "each has a link port of its own"
    inside = int(relay.count("pitstop_relay_sessions", 2))
    os.kill(before[2], signal.SIGKILL)
    gone = await crew.cut(inside)
    assert len(gone) == inside
    for name, screen in crew.screens.items():
        if name not in gone:
            screen.type("echo still he''re\n")
            await screen.until("still here")
    for name in gone:
        await crew.enter(name, relay.options)
    wait_until(lambda: {worker["pid"] for worker in relay.ready["workers"]}.isdisjoint({before[2]}), PATIENCE)
    after = {worker["worker"]: worker["pid"] for worker in relay.ready["workers"]}
    assert after[1] == before[1] and after[2] != before[2]
    assert relay.count("pitstop_relay_worker_restarts_total", 2) == 1
    assert page(f"{relay.ready['http']}/readyz") == "ok\n"


async def _a_relay_is_drained(crew: Crew, relay: Relay, other: Relay) -> None:
    """Half of the people come in anew through it; one of them leaves when asked, the others when it ends."""
    moved = list(crew.screens)[::2]
    for name in moved:
        await crew.screens[name].cut()
        await crew.enter(name, relay.options)
    gone = asyncio.create_task(relay.stopped())
    for name in moved:
        await crew.screens[name].until("this relay will end in 4 s at the latest")
    refused = await crew.run.ssh("true", options=relay.options)
    assert refused.status == 255 and "Connection refused" in refused.err
    await crew.screens[moved[0]].cut()
    await crew.enter(moved[0], other.options)
    for name in moved[1:]:
        await crew.screens[name].until("this relay is being stopped. Your shell goes on")
        assert await crew.screens[name].ended() == 255
        await crew.enter(name, other.options)
    assert await gone < HANDED_OVER_WITHIN


async def _a_relay_is_stopped(crew: Crew, relay: Relay) -> None:
    """All of its people go on through the one that is left, that of `pitstop up`."""
    gone = asyncio.create_task(relay.stopped())
    for name in list(crew.screens):
        assert await crew.screens[name].ended() == 255
        await crew.enter(name, ())
    assert await gone < HANDED_OVER_WITHIN


async def test_a_changed_host_key_is_taken_or_refused_with_a_word(anybody: Outside) -> None:
    """`pitstop exec` pins; a job that was announced with the next key's line never notices the change."""
    place = anybody.place
    key = ("--file", str(place.home.dir / "relay" / "ssh_host_ed25519_key"))
    early = await anybody.request("true", ssh={"pause": "at_end"})
    await early.paused()
    assert place.home.run("relay-key", "next", *key).returncode == 0
    await asyncio.to_thread(kill, place, "relay")
    late = await anybody.request("true", ssh={"pause": "at_end"})
    await late.paused()
    assert place.home.run("relay-key", "switch", *key).returncode == 0
    await asyncio.to_thread(kill, place, "relay")
    shown = place.home.json("relay-key", "show", *key)["keys"]
    assert [one["state"] for one in shown] == ["current", "old"]
    words = ("--org", "acme", "-i", str(place.person().key), "--", "echo in")
    done = await asyncio.to_thread(place.home.run, "exec", late.job, *words)
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
    done = await asyncio.to_thread(place.home.run, "exec", early.job, *words)
    assert (done.returncode, done.stdout) == (255, "")
    assert f"shows the host key {shown[0]['fingerprint']}; pinned is {shown[1]['fingerprint']}" in done.stderr
    assert "Somebody else may answer there: do not go on" in done.stderr

    authority = place.home.folder / "authority"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", authority], check=True)
    sign = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "relay", "-n", "127.0.0.1", f"{key[1]}.pub"]
    subprocess.run(sign, check=True)
    await asyncio.to_thread(kill, place, "relay")
    signed = await anybody.request("true", ssh={"pause": "at_end"})
    await signed.paused()
    info = place.home.json("ssh", signed.job, "--info", "--org", "acme")
    current, old, trusted = info["known_hosts"].splitlines()
    assert info["fingerprint"] == shown[0]["fingerprint"] and current != old
    assert trusted.startswith("@cert-authority [127.0.0.1]:")
    place.known_hosts.write_text(f"{trusted}\n")
    assert (await signed.ssh("echo in")).out == "in\n", "who trusts the authority needs no key"
