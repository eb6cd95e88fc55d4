"""A shell waits at a pause for whoever comes first: the same as a new one, and seen by nobody before."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import msgspec
from tests.jobs import DEADLINE, SETTINGS, Driven, driven, facts_of, run_of, until

from pitstop_common.messages import Resume
from pitstop_common.spec import PausePlan, RunSpec
from pitstop_sandbox.backends.namespaces import NamespacesBackend
from pitstop_sandbox.backends.port import Process
from pitstop_sandbox.channels.ready import Wishes
from pitstop_sandbox.model import STARTED_AHEAD
from pitstop_sandbox.ports import Pty, Session

TERMINAL = {"TERM": "xterm-256color"}
MARK = re.compile(rb"<<(.*?)>>", re.DOTALL)


def settings() -> dict[str, object]:
    return {"settings": msgspec.structs.replace(SETTINGS, wishes=Wishes())}


def paused_after_the_first() -> RunSpec:
    return run_of("mkdir sub; echo A=from-step >>$GITHUB_ENV", "ls /proc | grep -c '^[0-9]'; echo $B",
                  pause=PausePlan(after_step=1))  # fmt: skip


async def ready(job: Driven) -> str:
    """Returns its id when a shell is ready."""
    await until(lambda: job.runner._ready_shell._kept is not None)
    kept = job.runner._ready_shell._kept
    assert kept is not None
    return kept[1].id


async def ask(job: Driven, session: Session, pty: Pty, env: dict[str, str]) -> Process:
    """A shell, as a client asks for one."""
    entry = await job.runner.entry(session, interactive=True)
    process = await job.runner.spawn(session, [entry.shell], entry, pty=pty, env=env)
    job.runner.shell_started(session, process, job)
    return process


async def say(process: Process, command: str) -> str:
    """What a command typed into a shell prints."""
    (master,) = process.fds
    os.set_blocking(master, True)
    os.write(master, f"printf '<''<%s>''>' \"$({command})\"\n".encode())

    def read() -> str:
        seen = b""
        while (found := MARK.search(seen)) is None:
            seen += os.read(master, 4096)
        return found[1].decode().replace("\r\n", "\n")

    async with asyncio.timeout(DEADLINE):
        return await asyncio.to_thread(read)


async def leave(job: Driven, session: Session, process: Process) -> None:
    os.write(process.fds[0], b"exit\n")
    await job.ended(session, process)
    os.close(process.fds[0])


async def is_over(job: Driven, process: str) -> None:
    sandbox = job.runner._sandbox
    assert sandbox is not None
    async with asyncio.timeout(DEADLINE):
        await (await sandbox.processes())[process].wait()


async def test_who_comes_first_finds_a_shell_that_is_as_a_new_one(tmp_path: Path) -> None:
    async with driven(paused_after_the_first(), tmp_path / "job", **settings()) as job:
        waiting = await ready(job)
        state = job.runner.state
        assert state.deadline and not state.sessions and not state.shell_open  # nobody has come in
        assert not facts_of(job.store, "ssh.active") and not facts_of(job.store, "ssh.connected")
        assert not job.runner._is_of_people(waiting)

        ada = await job.enter()
        first = await ask(job, ada, Pty(132, 43), TERMINAL)
        assert first.id == waiting and waiting.startswith(STARTED_AHEAD)
        assert job.runner._is_of_people(waiting)
        await first.resize(132, 43)
        facts = "pwd; umask; stty size; id -u; tty >/dev/null && echo tty; ulimit -n; echo $A"
        hidden = "env | grep -v '^PITSTOP_SESSION=\\|^_=' | sort"
        seen, env = await say(first, facts), await say(first, hidden)
        assert "43 132" in seen and "from-step" in seen and "TERM=xterm-256color" in env

        # The same questions to a shell that is new.
        second = await ask(job, ada, Pty(132, 43), TERMINAL)
        assert not second.id.startswith(STARTED_AHEAD)
        assert (await say(second, facts), await say(second, hidden)) == (seen, env)
        os.write(second.fds[0], b"exit\n")
        await second.wait()
        os.close(second.fds[0])
        await job.runner.shell_ended(ada, second, by_itself=True)
        assert job.runner.state.status.value == "paused"

        # Who steers the job from it is known.
        os.write(first.fds[0], b"pitstop-step continue\n")
        await job.end()
        os.close(first.fds[0])
        resumed = job.store.last("job.resumed")
        assert (resumed["choice"], resumed["by"]) == ("continue", "ada")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_who_asks_for_something_else_gets_a_new_one_and_the_next_is_made_so(tmp_path: Path) -> None:
    async with driven(paused_after_the_first(), tmp_path / "job", **settings()) as job:
        waiting = await ready(job)
        ada = await job.enter()
        modes = ((3, 8), (42, 1))  # erase is ^H
        first = await ask(job, ada, Pty(modes=modes), {"TERM": "vt220", "LC_TIME": "C"})
        assert not first.id.startswith(STARTED_AHEAD)
        await is_over(job, waiting)
        await job.runner.shell_ended(ada, first, by_itself=False)
        await job.runner.closed(ada, "disconnect")
        os.close(first.fds[0])

        second = await ready(job)
        assert second != waiting
        ada = await job.enter("s2")
        shell = await ask(job, ada, Pty(modes=modes), {"TERM": "vt220", "LC_TIME": "C"})
        assert shell.id == second
        assert await say(shell, "echo $TERM $LC_TIME; stty -a | grep -o ' erase = [^;]*'") == "vt220 C\n erase = ^H"
        await leave(job, ada, shell)
        await job.end()
        assert job.runner.finished == "success"


async def test_what_was_changed_since_is_seen(tmp_path: Path) -> None:
    async with driven(paused_after_the_first(), tmp_path / "job", **settings()) as job:
        waiting = await ready(job)
        ada = await job.enter()
        await job.exec(ada, 'echo A=changed >>"$GITHUB_ENV"')
        await is_over(job, waiting)
        shell = await ask(job, ada, Pty(), TERMINAL)
        assert not shell.id.startswith(STARTED_AHEAD)
        assert await say(shell, "echo $A") == "changed"
        await leave(job, ada, shell)
        await job.end()


async def test_it_ends_with_the_pause_and_when_its_host_was_killed(tmp_path: Path) -> None:
    backend = NamespacesBackend()
    async with driven(paused_after_the_first(), tmp_path / "job", backend=backend, **settings()) as job:
        first = await ready(job)
        job.task.cancel()  # as a kill: nobody ends anything
        await asyncio.gather(job.task, return_exceptions=True)

        again = Driven(paused_after_the_first(), tmp_path / "job", backend, **settings())
        second = await ready(again)
        assert second != first
        await is_over(again, first)
        await again.runner.resume(Resume(org="acme", run="r", job="j", attempt=1, reason="connect_window"))
        await is_over(again, second)
        await again.end()
        assert again.runner.finished == "success"
