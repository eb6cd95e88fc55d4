"""`pitstop run` after the request: one line per wait, the log, the terminal at a pause, the result."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any, Final, TextIO

import msgspec

from pitstop_cli import words
from pitstop_cli.client import Client
from pitstop_cli.console import colourful, interactive, out, out_json, plain, say
from pitstop_cli.exits import INTERRUPTED, TRANSPORT, Failure, of_result
from pitstop_cli.follow import Follower
from pitstop_cli.pinned import refuse_another
from pitstop_cli.render import LogView
from pitstop_cli.request import Plan, SshOptions
from pitstop_cli.terminal import command_line, enter, ssh_argv
from pitstop_cli.watch import Status, Watch, address_of, waiting_event, watching

_LAST_LINES_SECONDS: Final = 0.3


class Manner(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is attended. `leave`: may the run go on without us (not with --local)."""

    ssh: SshOptions
    json: bool = False
    identity: str = ""
    leave: bool = True


async def attend(client: Client, plan: Plan, jobs: dict[str, str], manner: Manner) -> int:
    """Follow the run to its end. `jobs`: key -> id. Returns the exit code."""
    async with watching(client, plan.run) as watch:
        return await _Attendant(client, plan, jobs, manner, watch).attend()


class _Attendant:
    def __init__(self, client: Client, plan: Plan, jobs: dict[str, str], manner: Manner, watch: Watch) -> None:
        self._client, self._plan, self._manner, self._watch = client, plan, manner, watch
        self._keys = {job: key for key, job in jobs.items()}
        self._follower = Follower(client, plan.run)
        self._interrupts = Interrupts()
        self._cancelled = False
        self._log: asyncio.Task[None]
        self._said: dict[str, str] = {}
        self._entered: set[tuple[str, float]] = set()
        self._given_up: set[str] = set()
        self._told_command = False

    async def attend(self) -> int:
        view = LogView(self._keys, colour=colourful(self._stream), github=bool(os.environ.get("GITHUB_ACTIONS")))
        self._log = asyncio.create_task(self._follower.show(view, self._stream))
        work = asyncio.create_task(self._watch_to_the_end())
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupts.heard)
        try:
            return await self._unless_interrupted(work)
        finally:
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            for task in (work, self._log):
                task.cancel()
            await asyncio.gather(work, self._log, return_exceptions=True)

    @property
    def _stream(self) -> TextIO:
        """The log is data, unless stdout is kept for the ssh command or for JSON."""
        kept = self._manner.json or (self._manner.ssh.asked and not sys.stdout.isatty())
        return sys.stderr if kept else sys.stdout

    # -- the run -----------------------------------------------------------------------------------------------------

    async def _watch_to_the_end(self) -> int:
        async for status in self._watch.changes():
            for entry in status["jobs"]:
                self._tell(entry)
                await self._open(entry)
            if status["run"]["status"] == "finished":
                return await self._end(status)
        raise AssertionError("a watch never ends by itself")

    def _tell(self, entry: dict[str, Any]) -> None:
        """One line for each wait and each change of state."""
        job = entry["job"]
        text = words.queued(entry) if job["status"] == "queued" else words.state(entry)
        if job["status"] == "paused" and (held := words.slot(entry, time.time())):
            text += f"; {held}"
        text += words.again(job)
        if self._said.get(job["job"]) != text:
            self._said[job["job"]] = text
            if self._follower.free.is_set():
                say(f"{job['job']} {plain(job['key'])}: {text}", "dim")

    async def _open(self, entry: dict[str, Any]) -> None:
        """The job waits for its person: the terminal, or the command for it."""
        job, address = entry["job"], address_of(entry)
        direct = self._manner.ssh.direct and job["status"] == "running"
        if address is None or not (direct or job["status"] == "paused"):
            return
        moment = (job["job"], 0.0 if direct else float(job["paused_at"]))
        if moment in self._entered:
            return
        self._entered.add(moment)
        argv = ssh_argv(address, identity=self._manner.identity)
        if self._manner.json:
            out_json(waiting_event(entry, address))
        elif not interactive():
            self._tell_command(command_line(argv))
        elif job["job"] not in self._given_up:
            await self._terminal(job["job"], argv, address)

    def _tell_command(self, command: str) -> None:
        """Exactly one line on stdout, however often the job waits."""
        if not self._told_command:
            self._told_command = True
            (out if self._manner.ssh.asked else say)(command)

    async def _terminal(self, job: str, argv: list[str], address: dict[str, Any]) -> None:
        await asyncio.sleep(_LAST_LINES_SECONDS)  # let the log show what led here
        self._follower.free.clear()
        say(f"connecting: {command_line(argv)}", "dim")
        try:
            code = await enter(argv, self._interrupts.heard)
        finally:
            self._follower.free.set()
        if code == TRANSPORT:
            self._given_up.add(job)
            try:
                await refuse_another(address)
            except Failure as fault:
                say(f"{fault.what}\n  {fault.next}", "red")
                return
            again = f"Enter again: pitstop ssh {job}; why not: pitstop doctor ssh {job}"
            say(f"the connection to {job} failed or was cut. {again}", "yellow")

    async def _end(self, status: Status) -> int:
        self._follower.finish((entry["job"]["job"], entry["job"]["attempt"]) for entry in status["jobs"])
        await asyncio.wait({self._log})
        run = status["run"]
        code = of_result(run["result"])
        jobs = {entry["job"]["key"]: entry["job"]["result"] for entry in status["jobs"]}
        if self._manner.json:
            out_json({"event": "finished", "run": run["run"], "result": run["result"], "jobs": jobs,
                      "exit_code": code})  # fmt: skip
        for entry in status["jobs"]:
            if entry["job"]["result"] == "error":
                say(f"{entry['job']['job']}: {plain(entry['job'].get('reason') or 'error')}"
                    f" {plain(entry.get('message') or '')}".rstrip(), "red")  # fmt: skip
        if run["result"] == "failure" and not self._manner.ssh.asked:
            say(f"look inside: pitstop rerun {run['run']} --failed --ssh-on-failure", "dim")
        took = words.span(run["finished"] - run["created"]) if run.get("finished") else ""
        say(f"run {run['run']}: {run['result']}" + (f" after {took}" if took else ""), "green" if not code else "red")
        return code

    # -- Ctrl-C ------------------------------------------------------------------------------------------------------

    async def _unless_interrupted(self, work: asyncio.Task[int]) -> int:
        while not await self._interrupts.first_of(work):
            choice = await self._choice(work)
            if choice == "leave":
                run = self._plan.run
                say(f"the run goes on. Follow it: pitstop logs -f {run}   End it: pitstop cancel {run}")
                return INTERRUPTED
            if choice == "cancel":
                self._cancelled = True
                say("cancelling the run")
                await self._client.call("cancel", {"run": self._plan.run, "job": "", "reason": "Ctrl-C"})
        return work.result()

    async def _choice(self, work: asyncio.Task[int]) -> str:
        """What Ctrl-C means now: cancel, leave, or empty: go on."""
        if self._cancelled:
            return "leave"
        if not interactive():
            return "leave" if self._manner.leave else "cancel"
        enter_means = "Enter leaves it running" if self._manner.leave else "Enter goes on with it"
        say(f"\nCancel run {self._plan.run}? Ctrl-C again (or y) cancels it, {enter_means}.", "yellow")
        line = asyncio.create_task(_line_of_stdin())
        try:
            answered = await self._interrupts.first_of(line, work)
        finally:
            line.cancel()
            await asyncio.gather(line, return_exceptions=True)
        if not answered or (line in answered and not line.cancelled() and line.result().startswith(("y", "Y"))):
            return "cancel"
        return "leave" if self._manner.leave and not work.done() else ""


class Interrupts:
    """Ctrl-C, as something to wait for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def heard(self) -> None:
        """The signal handler."""
        self._event.set()

    async def first_of(self, *tasks: asyncio.Task[Any]) -> set[asyncio.Task[Any]]:
        """Those of `tasks` that are done; empty when Ctrl-C came first. The tasks go on."""
        heard = asyncio.create_task(self._event.wait())
        try:
            done, _ = await asyncio.wait({heard, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            heard.cancel()
        self._event.clear()
        return done - {heard}


async def _line_of_stdin() -> str:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str] = loop.create_future()

    def readable() -> None:
        line = sys.stdin.readline()
        if not future.done():
            future.set_result(line)

    loop.add_reader(sys.stdin, readable)
    try:
        return await future
    finally:
        loop.remove_reader(sys.stdin)
