"""What hostile code in a namespace sandbox can reach: nothing of the host, nothing of another job, no privilege."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.contract.backend_kit import ENV, INIT, Machine, output, pids_of, run, shell, soon, until

from pitstop_sandbox.backends.port import Backend, Limits, Sandbox

INSIDE_STATUS = {
    "CapInh": "0000000000000000",
    "CapPrm": "0000000000000000",
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "1",
}


async def refused(sandbox: Sandbox, text: str) -> str:
    code, said = await run(sandbox, text)
    assert code != 0, f"this worked: {text}\n{said}"
    return said


async def test_a_process_has_no_capability_and_can_gain_none(sandbox: Sandbox) -> None:
    _, said = await run(sandbox, "cat /proc/self/status")
    status = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    assert {name: status[name].strip() for name in INSIDE_STATUS} == INSIDE_STATUS
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Groups"].split() in ([], ["1000"])
    assert status["SigIgn"].strip() == status["SigBlk"].strip() == "0" * 16


async def test_nothing_of_the_holder_leaks_into_a_process(sandbox: Sandbox) -> None:
    code, said = await run(sandbox, "ls /proc/self/fd; ls /proc/1/fd; cat /proc/1/environ")
    assert (code, said) == (0, "0\n1\n2\n3\n0\n1\n2\n3\nPWD=/\0")


async def test_the_environment_is_what_was_given_and_nothing_else(sandbox: Sandbox) -> None:
    env = {**ENV, "EMPTY": "", "ODD": "a=b\nc é", "HOME": "/home/runner"}
    process = await sandbox.spawn(shell("exec env -0", env=env))
    assert sorted((await output(process)).split("\0")[:-1]) == sorted(
        [*(f"{key}={value}" for key, value in env.items()), "PWD=/home/runner/work"]
    )


async def test_the_folder_the_user_and_the_umask_are_those_asked_for(sandbox: Sandbox) -> None:
    _, said = await run(sandbox, "pwd; id -un; id -u; umask; hostname; echo ~runner", cwd="/tmp", umask=0o027)
    assert said.split() == ["/tmp", "runner", "1000", "0027", "pitstop", "/home/runner"]


async def test_the_job_folders_are_where_they_should_be(machine: Machine, sandbox: Sandbox) -> None:
    folder = machine.folder / "job.1"
    text = (
        "echo w >/home/runner/work/w && echo j >/run/pitstop/j && echo h >/home/runner/h && cat /opt/pitstop/bin/tool"
    )
    (folder / "bin" / "tool").write_text("tool\n")
    assert await run(sandbox, text, cwd="/home/runner") == (0, "tool\n")
    assert (folder / "work" / "w").read_text() == "w\n"
    assert (folder / "job" / "j").read_text() == "j\n"
    assert (folder / "work" / "w").stat().st_uid == (folder / "work").stat().st_uid
    assert (os.geteuid() == 0) == ((folder / "work" / "w").stat().st_uid != os.geteuid())


async def test_what_the_host_gives_can_be_written_inside(machine: Machine, sandbox: Sandbox) -> None:
    given = machine.folder / "job.1" / "work" / "deep" / "file"
    given.parent.mkdir()
    given.write_text("host\n")
    sandbox.give(given.parent)
    assert await run(sandbox, "cat deep/file && echo inside >deep/file && touch deep/more") == (0, "host\n")
    assert given.read_text() == "inside\n"


async def test_give_follows_no_link(machine: Machine, sandbox: Sandbox) -> None:
    outside = machine.folder / "outside"
    outside.mkdir()
    (outside / "file").touch()
    await run(sandbox, f"ln -s {outside} link; mkdir tree; ln -s {outside}/file tree/link")
    work = machine.folder / "job.1" / "work"
    sandbox.give(work / "tree")
    sandbox.give(work / "link")
    with pytest.raises(OSError, match=r"."):
        if os.geteuid() != 0:
            raise OSError("only root gives anything away")
        sandbox.give(work / "link" / "file")
    assert {path.stat().st_uid for path in (outside, outside / "file")} == {os.geteuid()}


@pytest.mark.parametrize(
    "path", ["/root", "/etc/shadow", "/var/run/docker.sock", "/var/lib", "/sys", "/boot", "/proc/1/root/root", "/opt"]
)
async def test_the_hosts_files_are_not_there(sandbox: Sandbox, path: str) -> None:
    _, said = await run(sandbox, f"ls -A {path} 2>&1")
    assert said.strip() in ("", "pitstop") or "No such file" in said


async def test_the_hosts_temporary_files_and_other_jobs_are_not_there(machine: Machine, backend: Backend) -> None:
    first, second = await machine.create(backend, "a.1"), await machine.create(backend, "b.1")
    await run(first, "echo secret >/tmp/secret; echo secret >secret; sleep 600 & echo", name="plant")
    work = machine.folder / "a.1" / "work"
    assert (work / "secret").exists()
    await refused(second, f"cat /tmp/secret || cat {work}/secret || ls {machine.folder} || ls {machine.folder.parent}")
    _, seen = await run(
        second, "ps -eo args; ls /tmp; find / -name secret -not -path '/usr/*' 2>/dev/null", name="look"
    )
    assert "sleep 600" not in seen
    assert "secret" not in seen.replace("-name secret", "")


@pytest.mark.parametrize(
    "path", ["/usr/bin/x", "/etc/passwd", "/opt/pitstop/bin/x", "/x", "/dev/x", "/run/x", "/bin/x"]
)
async def test_the_system_cannot_be_written(sandbox: Sandbox, path: str) -> None:
    said = await refused(sandbox, f"echo x >{path}")
    assert "Read-only" in said or "Permission denied" in said


async def test_the_hosts_loopback_cannot_be_reached(sandbox: Sandbox) -> None:
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        server.setblocking(False)
        loop.add_reader(server, reached.set)
        abstract.bind(f"\0pitstop-test-{os.getpid()}")
        abstract.listen()
        port = server.getsockname()[1]
        await refused(sandbox, f"exec bash -c 'echo x >/dev/tcp/127.0.0.1/{port}'")
        python = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0pitstop-test-{os.getpid()}')"
        await refused_python(sandbox, python)
        loop.remove_reader(server)
    assert not reached.is_set()


async def refused_python(sandbox: Sandbox, text: str) -> None:
    """Needs a Python inside; without one the try is not made."""
    if Path("/usr/bin/python3").exists():
        process = await sandbox.spawn(shell(f'exec /usr/bin/python3 -c "{text}"', name="python"))
        assert (await soon(process.wait())).code == 1
        assert "ConnectionRefusedError" in await output(process)


async def test_the_loopback_inside_is_up(sandbox: Sandbox) -> None:
    code, said = await run(sandbox, "ls /sys/class/net 2>/dev/null; cat /proc/net/dev | tail -n +3 | cut -d: -f1")
    assert (code, said.split()) == (0, ["lo"])
    assert (await run(sandbox, "exec bash -c 'echo x >/dev/tcp/127.0.0.1/9' 2>&1", name="connect"))[1].count("refused")


async def test_the_processes_of_the_host_are_not_seen(sandbox: Sandbox) -> None:
    _, said = await run(sandbox, "exec ps -eo pid,args")
    assert [line.split(None, 1)[1] for line in said.splitlines()[1:]] == [*INIT, "ps -eo pid,args"]


async def test_set_uid_programs_give_nothing(sandbox: Sandbox) -> None:
    _, said = await run(
        sandbox, "su -c 'id -u' </dev/null; sudo -n id -u; mount -t tmpfs none /tmp; chroot / id -u; echo end"
    )
    assert said.splitlines()[-1] == "end"
    assert "0" not in said.split("\n")


async def test_mounts_and_new_namespaces_are_refused(sandbox: Sandbox) -> None:
    said = await refused(sandbox, "unshare -Ur id -u")
    assert "No space left" in said or "not permitted" in said
    await run(sandbox, "umount /usr", name="umount")
    code, _ = await run(sandbox, "mount --bind /tmp /usr || umount -l /usr || mount -o remount,rw /usr", name="mount")
    assert code != 0


async def test_process_one_cannot_be_killed_from_inside(sandbox: Sandbox) -> None:
    code, said = await run(sandbox, "trap '' TERM; kill -9 1; kill -TERM 1; echo $?; exec ps -p 1 -o args=")
    assert (code, said.splitlines()[-1]) == (0, INIT[0])
    assert (await run(sandbox, "kill -9 -1; exit 5", name="all"))[0] == 5
    assert (await run(sandbox, "exit 6", name="after"))[0] == 6


async def test_the_lifeline_cannot_be_taken_from_inside(machine: Machine, sandbox: Sandbox) -> None:
    text = "exec 9>/proc/1/fd/3; echo opened; kill -9 -1; exec sleep 600"
    assert "opened" not in (await run(sandbox, text))[1]
    holder = pids_of(machine.folder / "job.1")[-1][0]
    await sandbox.spawn(shell("exec sleep 600", name="stays"))
    os.kill(holder, signal.SIGKILL)
    await until(lambda: not machine.living(), "the sandbox outlives its holder")
    await sandbox.remove()


async def test_a_fork_bomb_is_bounded_and_leaves_the_sandbox_usable(machine: Machine, backend: Backend) -> None:
    sandbox = await machine.create(backend, limits=Limits(processes=40))
    bomb = await sandbox.spawn(shell("i=0; while [ $i -lt 500 ]; do sleep 600 & i=$((i+1)); done", name="bomb"))
    assert (await soon(bomb.wait())).code != 0
    assert "fork" in (await output(bomb))
    assert (await run(sandbox, "exit 3", name="after"))[0] == 3
    await soon(sandbox.remove())


async def test_limits_hold(machine: Machine, backend: Backend) -> None:
    limits = Limits(processes=50, open_files=64, file_size=1 << 20, memory=1 << 30)
    sandbox = await machine.create(backend, limits=limits)
    _, said = await run(sandbox, "ulimit -u; ulimit -n; ulimit -f; ulimit -v; ulimit -c; ulimit -Hn", name="shown")
    shown = await run(
        sandbox, "exec bash -c 'ulimit -u; ulimit -n; ulimit -f; ulimit -v; ulimit -c; ulimit -Hn'", name="b"
    )
    assert said is not None
    assert shown == (0, "50\n64\n1024\n1048576\n0\n64\n")
    code, _ = await run(sandbox, "dd if=/dev/zero of=big bs=65536 count=64 2>/dev/null", name="big")
    assert code != 0
    assert (machine.folder / "job.1" / "work" / "big").stat().st_size == 1 << 20
