#!/usr/bin/env python3
"""The main job of Pitstop on real input, told as a timeline: `make demo`.

A run of this very checkout fails, its author enters it with ssh, repairs the cause and retries. Then a session that
nobody uses gives its slot back to the run that waits. Whatever is not as told ends the demo with exit code 1.

Read `publish.py` (how to ask for a run) and `listen.py` (how to hear of it) first: this is built of those two.
"""

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any, Final

from demo_events import NAMES, Events, Heard
from demo_shell import Shell, entered
from demo_show import DemoError, Show, styled
from demo_system import ROOT, System, head_of_this_checkout, leftovers, running_system, temporary_folder
from listen import listening
from nats.aio.client import Client

ORG, PROJECT, ACTOR = "acme", "clock", "ada"
TEST_STEP: Final = 3
IDLE_SECONDS: Final = 3
HANDED_ON_SECONDS: Final = 1.0
VERIFY_AGAIN: Final = 10


class Demo:
    """The story, and the parts it is told with."""

    def __init__(self, show: Show, system: System, events: Events, client: Client, sha: str) -> None:
        self.show, self.system, self.events, self.client, self.sha = show, system, events, client, sha
        self.folder = system.folder

    # -- the parts -------------------------------------------------------------------------------------------------

    async def publish(self, request: str, workflow: str, *options: str) -> None:
        """Ask for a run, as any program can."""
        argv = ["examples/publish.py", f"examples/{workflow}", "--id", request]
        argv += ["--org", ORG, "--project", PROJECT, "--actor", ACTOR, *options]
        shown = f"python {' '.join(argv)}".replace(f"{self.folder}/", "")
        self.show.typed(shown.replace(str(ROOT), "$PWD").replace(self.sha, "$SHA"))
        publisher = await asyncio.create_subprocess_exec(
            sys.executable, *argv, "--nats", self.system.nats, cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, err = await publisher.communicate()
        if publisher.returncode:
            raise DemoError(f"publish.py: {err.decode(errors='replace').strip()}")

    async def status(self, request: str) -> dict[str, Any]:
        """What the API says of a run: a NATS request, answered by any scheduler."""
        run = (await self.events.wait(request, "run.queued")).event["run"]
        reply = await self.client.request(f"api.{ORG}.{ACTOR}.status", json.dumps({"run": run}).encode(), timeout=5)
        status: dict[str, Any] = json.loads(reply.data)
        if "Nats-Service-Error" in (reply.headers or {}):
            raise DemoError(f"the API does not say how {request} is: {status.get('message')}")
        return status

    def entered(self, paused: Heard) -> Any:
        """A shell in a paused job."""
        return entered(paused.event["ssh"], self.folder, self.show)

    # -- the first story -------------------------------------------------------------------------------------------

    async def a_failed_test_is_repaired(self) -> None:
        self.show.title("1. A test fails. Its author enters the sandbox, repairs the cause, retries, and leaves.")
        source = ("--git", str(ROOT), "--sha", self.sha)
        await self.publish("first", "clock.yml", *source, "--pause", "on_failure", "--key", f"{self.folder}/key.pub")
        test = await self.events.wait("first", "step.finished", step=TEST_STEP)
        if test.event["result"] != "failure":
            name = test.event["name"]
            raise DemoError(f"step {TEST_STEP} ({name}) did not fail: has HEAD a repaired examples/clock/clock.sh?")
        paused = await self.events.wait("first", "job.paused", reason="on_failure")
        async with self.entered(paused) as shell:
            await self.look_around(shell)
            await self.repair(shell)
            self.show.check(await shell.leave() == 0, "ssh ended well after `exit`")
        finished = await self.events.wait("first", "run.finished")
        self.show.check(finished.event["result"] == "success", "first run: success", finished.event["result"])
        await self.check_first_record()

    async def look_around(self, shell: Shell) -> None:
        (where,) = await shell.type("pwd")
        self.show.check(where.endswith("/examples/clock"), "the shell opened in the failed step's folder", where)
        seen = dict(line.split("=", 1) for line in await shell.type("env | grep -E '^(CASES|GITHUB_SHA)='"))
        same = seen.get("CASES", "").endswith("/cases.txt") and seen.get("GITHUB_SHA") == self.sha
        self.show.check(same, "it had the variables that the step had, of this checkout's HEAD", str(seen))
        failed = "\n".join(await shell.type("sh test.sh"))
        wrong = "FAIL  3725 is 1:62:05" in failed
        self.show.check(wrong, "the test failed in the shell as it failed in the step", failed)

    async def repair(self, shell: Shell) -> None:
        await shell.type("grep -n minutes= clock.sh")
        await shell.type("sed -i 's|/ 60|/ 60 % 60|' clock.sh")
        again = "\n".join(await shell.type("pitstop-step retry"))
        self.show.check("ok    3725 is 1:02:05" in again, "repaired, `pitstop-step retry` ran the step again", again)

    async def check_first_record(self) -> None:
        step = (await self.status("first"))["jobs"][0]["report"]["steps"][TEST_STEP - 1]
        kept = {name: step[name] for name in ("result", "attempts", "choice", "by")}
        wanted = {"result": "success", "attempts": 2, "choice": "retry", "by": ACTOR}
        told = f"its record: step {TEST_STEP} success, attempts 2, retry, by {ACTOR}"
        self.show.check(kept == wanted, told, str(kept))
        self.check_order("first", (
            "run.requested", "run.queued", "run.started", "sandbox.ready", "step.finished", "step.finished",
            "step.finished", "job.paused", "ssh.connected", "step.started", "step.finished", "job.resumed",
            "step.finished", "run.finished",
        ))  # fmt: skip

    def check_order(self, request: str, wanted: tuple[str, ...]) -> None:
        """All but warnings, and ends of connections: those are told before or after what they brought about."""
        heard = tuple(name for name in self.events.names(request) if name not in {"ssh.closed", "session.expiring"})
        self.show.check(heard == wanted, f"{request} run: all events once and in order", ", ".join(heard))

    # -- the second story ------------------------------------------------------------------------------------------

    async def an_idle_session_gives_its_slot_back(self) -> None:
        self.show.title(f"2. A session is left alone for {IDLE_SECONDS} s. The run that waits gets its slot.")
        pause = ("--pause", "after_step", "--step", "2", "--idle-timeout", str(IDLE_SECONDS))
        await self.publish("second", "hello.yml", *pause, "--key", f"{self.folder}/key.pub")
        paused = await self.events.wait("second", "job.paused", reason="after_step")
        async with self.entered(paused) as shell:
            shell.look_away()
            await self.publish("third", "hello.yml")
            deadline = await self.third_waits()
            await self.slot_is_handed_on(deadline)
            await shell.ended()
        finished = await self.events.wait("second", "run.finished")
        ended = f"{finished.event['result']}, {finished.event['reason']}"
        self.show.check(ended == "cancellation, idle", "second run: cancellation, idle", ended)
        finished = await self.events.wait("third", "run.finished")
        self.show.check(finished.event["result"] == "success", "third run: success", finished.event["result"])
        self.check_order("second", (
            "run.requested", "run.queued", "run.started", "sandbox.ready", "step.finished", "step.finished",
            "job.paused", "ssh.connected", "session.expired", "run.finished",
        ))  # fmt: skip

    async def third_waits(self) -> float:
        """Returns when the second session ends by itself, in seconds since the epoch."""
        (third,) = (await self.status("third"))["jobs"]
        self.show.note(f"third waits at position {third['position']}: {third['reason']}; nobody types in second")
        queued = (third["job"]["status"], third["position"]) == ("queued", 1)
        self.show.check(queued, "third run queued while second held the only slot", third["job"]["status"])
        (second,) = (await self.status("second"))["jobs"]
        reason, deadline = second["job"]["deadline_reason"], float(second["job"]["deadline"])
        self.show.check(reason == "idle", "second session had its idle limit as deadline", reason)
        return deadline

    async def slot_is_handed_on(self, deadline: float) -> None:
        expired = await self.events.wait("second", "session.expired")
        self.show.check(expired.event["reason"] == "idle", "session.expired: idle", expired.event["reason"])
        started = await self.events.wait("third", "run.started")
        late = started.at - deadline
        told = f"its slot went to third {late:.2f} s after the deadline (< {HANDED_ON_SECONDS:g} s)"
        self.show.check(-0.05 < late < HANDED_ON_SECONDS, told)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def check_log(self) -> None:
        """The read models follow the log by a moment."""
        found = await self.system.verify()
        for _ in range(VERIFY_AGAIN):
            if not found["wrong"]:
                break
            await asyncio.sleep(0.2)
            found = await self.system.verify()
        clean = (found["runs"], found["ended"], found["grants"], found["wrong"]) == (3, 3, 3, [])
        told = f"pitstop verify: {found['records']} records, 3 runs, 3 grants, nothing wrong"
        self.show.check(clean, told, str(found))


async def tell(show: Show, running: list[System]) -> None:
    """The whole story. DemoError when something is not as told."""
    sha = head_of_this_checkout()
    with temporary_folder() as folder:
        try:
            show.title("0. One command starts NATS and the four services. The org has one slot.")
            show.typed("pitstop up --json --org-slots 1")
            async with running_system(folder, "--org-slots", "1") as system:
                running.append(system)
                show.note(f"ready after {show.elapsed:.1f} s; this checkout is at {sha[:10]}")
                await stories(show, system, sha)
                show.title("3. Ctrl-C drains the system.")
            show.note(f"everything has ended after {show.elapsed:.1f} s")
        finally:
            if left := leftovers(folder):
                raise DemoError("left behind: " + ", ".join(left))
    show.check(not folder.exists(), "nothing is left: no process, no mount, no folder", str(folder))


async def stories(show: Show, system: System, sha: str) -> None:
    """Both, and the proof from the decision log."""
    events = Events(show)
    async with listening(system.nats, NAMES, events.hear) as client:
        demo = Demo(show, system, events, client, sha)
        await demo.a_failed_test_is_repaired()
        await demo.an_idle_session_gives_its_slot_back()
        await demo.check_log()


async def main() -> int:
    """Exit code 0: all as told; 1: not; 130: Ctrl-C. The first Ctrl-C cleans up, a second hurries."""
    show, running, signals = Show(), list[System](), list[signal.Signals]()
    story = asyncio.ensure_future(tell(show, running))

    def interrupted(number: signal.Signals) -> None:
        signals.append(number)
        if len(signals) == 1:
            show.note("stopping, and cleaning up (once more: at once)")
            story.cancel()
        for system in running[: len(signals) - 1]:
            system.interrupt()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupted, number)
    await asyncio.wait({story})
    show.checks()
    if story.cancelled():
        print(styled("\nThe demo was stopped; nothing of it is left.", "yellow"), file=sys.stderr)
        return 128 + signals[0]
    error = story.exception()
    if error is not None:
        if not isinstance(error, DemoError):
            raise error
        print(styled(f"\nThe demo FAILED: {error}", "red"), file=sys.stderr)
        return 1
    print(styled(f"\nAll as told, in {show.elapsed:.1f} s.", "green"))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
