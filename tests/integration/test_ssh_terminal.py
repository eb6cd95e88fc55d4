"""People at a terminal: sizes, modes, notices, and what counts as leaving."""

from __future__ import annotations

import asyncio
import signal

import pytest
from tests.screens import screen
from tests.ssh_support import JOB, World, in_world

from pitstop_sandbox.channels import running


@in_world()
async def test_a_shell_with_its_notice_and_size_and_an_exit_that_counts(ssh: World) -> None:
    with screen(ssh, columns=101, rows=33) as person:
        await person.until("step 3 failed: exit code 7\r\n")
        person.type("stty size; tty\n")
        await person.until("33 101")
        await person.until("/dev/pts/")
        person.size(90, 20)
        person.type("while [ \"$(stty size)\" != '20 90' ]; do sleep 0.01; done; echo re''sized\n")
        await person.until("resized")
        person.type("exit 3\n")
        assert await person.ended() == 3
    await ssh.job.until("shell_ended", "by itself")
    await ssh.job.until("closed", "ada", "exit")
    opened = ("opened", "ada", ssh.access.replies[JOB].allowed[0].fingerprint)
    assert ssh.job.said[:3] == [opened, ("used", "shell", ""), ("shell_started",)]
    assert ssh.job.keys > 0
    assert ssh.job.outputs > 0


@in_world()
async def test_ctrl_d_ends_the_shell_by_itself(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("PS1='rea''dy '\n")
        await person.until("ready ")
        person.type("\x04")
        assert await person.ended() == 0
    await ssh.job.until("shell_ended", "by itself")


@in_world()
async def test_a_killed_client_is_a_cut_and_its_processes_end(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("trap 'echo bye' HUP; echo up''now; cat\n")
        await person.until("upnow")
        person.client.kill()
        await ssh.job.until("shell_ended", "cut")
        await ssh.job.until("closed", "ada", "disconnect")
    assert ("shell_ended", "by itself") not in ssh.job.said


@in_world()
async def test_the_escape_that_closes_is_a_cut(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("echo up''now\n")
        await person.until("upnow")
        person.type("\r~.")
        await ssh.job.until("shell_ended", "cut")
        await person.ended()


@in_world()
async def test_a_command_in_a_terminal_is_no_shell(ssh: World) -> None:
    with screen(ssh, "echo $TERM; stty -a | grep -o 'intr = [^;]*'; exit 5", options=["-tt"]) as person:
        await person.until("xterm-256color\r\n")
        await person.until("intr = ^C\r\n")
        assert await person.ended() == 5
    await ssh.job.until("closed", "ada", "exit")
    assert [said[0] for said in ssh.job.said] == ["opened", "used", "closed"]
    assert ssh.job.notice.encode() not in person.text


@in_world()
async def test_ctrl_c_reaches_the_process_in_front(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("PS1='rea''dy '; sh -c 'echo up\"\"now; exec sleep 1000'\n")
        await person.until("upnow")
        person.type("\x03")
        await person.until("ready ")  # what is typed before the prompt is thrown away with the interrupted line
        person.type("echo sta''tus $?\n")
        await person.until("status 130")
        person.type("exit\n")
        await person.ended()


@in_world()
async def test_a_stopped_job_says_so_in_the_terminal_and_closes(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("echo up''now\n")
        await person.until("upnow")
        ssh.host.notice(JOB, "pitstop: idle for 13 min; ends in 2 min")
        await person.until("\r\npitstop: idle for 13 min; ends in 2 min\r\n")
        await ssh.host.close_job(JOB, "pitstop: this session was idle too long.", "expired")
        await person.until("\r\npitstop: this session was idle too long.\r\n")
        await person.until("Received disconnect from 127.0.0.1")  # without the sentence: it has been read
        await person.until("pitstop: the session is over.")
        assert await person.ended() == 255
    await ssh.job.until("shell_ended", "cut")
    await ssh.job.until("closed", "ada", "expired")


@in_world()
async def test_a_shell_that_ends_while_its_job_is_stopped_was_stopped(ssh: World) -> None:
    with screen(ssh) as person:
        person.type("echo up''now\n")
        await person.until("upnow")
        closing = asyncio.ensure_future(ssh.host.close_job(JOB, "pitstop: cancelled by ada.", "stopped"))
        await person.until("pitstop: cancelled by ada.")
        await ssh.job.processes[0].signal(signal.SIGKILL)
        await person.ended()
        await closing
    await ssh.job.until("closed", "ada", "stopped")


@in_world()
async def test_two_shells_over_one_connection_end_one_by_one(ssh: World) -> None:
    control = ["-o", "ControlMaster=auto", "-o", f"ControlPath={ssh.folder}/mux", "-o", "ControlPersist=no"]
    with screen(ssh, options=control) as first:
        first.type("echo up''now\n")
        await first.until("upnow")
        with screen(ssh, options=control) as second:
            second.type("echo al''so\n")
            await second.until("also")
            second.type("exit\n")
            assert await second.ended() == 0
        await ssh.job.until("shell_ended", "by itself")
        assert await ssh.ssh("echo three", options=control) == (0, b"three\n", b"")
        first.type("exit\n")
        await first.ended()
    await ssh.job.until("closed", "ada", "exit")
    assert [said for said in ssh.job.said if said[0] in {"opened", "closed"}] == [
        ("opened", "ada", ssh.access.replies[JOB].allowed[0].fingerprint),
        ("closed", "ada", "exit"),
    ]


@in_world()
async def test_a_command_that_ignores_hangup_is_killed_when_its_client_goes(
    ssh: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "KILL_AFTER", 0.3)
    client = await asyncio.create_subprocess_exec(
        *ssh.ssh_args(), "trap '' HUP; echo $$; while :; do sleep 1; done", stdout=asyncio.subprocess.PIPE
    )
    assert client.stdout is not None
    assert (await client.stdout.readline()).strip().isdigit()
    client.send_signal(signal.SIGKILL)
    await client.wait()
    await ssh.job.until("closed", "ada", "disconnect")
    assert ssh.job.processes[0].popen.poll() == -signal.SIGKILL
