"""What a container may do and take of the machine: nothing beside its own, as its user and as root inside; and that a
step learns which limit it met."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.contract.backend_kit import Machine, output, pids_of, run, shell, soon, until
from tests.contract.test_docker_network import HERE, arm
from tests.docker_engine import DockerEngine

from pitstop_sandbox.backends.docker import meters
from pitstop_sandbox.backends.port import Backend, BackendError, Exit, Hit, Limits, Unix
from pitstop_sandbox.steps import endings

REFUSED = (
    "mount -t tmpfs none /mnt", "mount --bind /tmp /mnt", "mount -t proc none /mnt", "mount -t sysfs none /mnt",
    "mount -o remount,rw /opt/pitstop/bin", "mount -o remount,rw /sys", "umount /opt/pitstop/bin",
    "touch /opt/pitstop/bin/x", "rm /opt/pitstop/bin/trace",
    "unshare -m true", "unshare -U true", "unshare -n true", "nsenter -t 1 -m true",
    "echo 1 >/proc/sys/net/ipv4/ip_forward", "echo h >/proc/sysrq-trigger", "echo 65536 >/sys/class/net/lo/mtu",
    "echo 1 >/sys/fs/cgroup/memory/memory.limit_in_bytes", "echo 0 >/sys/fs/cgroup/pids/cgroup.procs",
    "chroot /proc/1/root/../.. test -e {folder}", "ls {folder}", "ls /proc/1/root{folder}", "ls {engine}",
    "ls /var/run/docker.sock", "ls /run/docker.sock", "ls /run/containerd", "ulimit -c unlimited",
    "mknod /tmp/disk b {major} {minor} && head -c 1 /tmp/disk", "mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
    "head -c 1 /proc/kcore | grep -q .", "{here}/trace {holder}", "kill -0 {holder}",
)  # fmt: skip
"""To everybody. Some name what only this machine has."""
OF_ROOT = (
    "{here}/trace 1",
    "exec 9<>/opt/pitstop/life/line",
    "cat /proc/1/environ",
    "ls /proc/1/fd",
    "mknod /tmp/null c 1 3 && head -c 1 /tmp/null",
)
"""Refused to the job's user. Root inside may, of its own container."""
ALLOWED = ("sleep 60 & {here}/trace $!; code=$?; kill -9 $!; exit $code", "ls /opt/pitstop/bin/trace")
"""So that it is known that these can work at all."""


@pytest.fixture
def kind() -> str:
    return "docker"


@pytest.fixture
def engine(docker_engine: DockerEngine) -> DockerEngine:
    return docker_engine


async def test_the_machine_is_out_of_reach(machine: Machine, backend: Backend, engine: DockerEngine) -> None:
    arm(machine, "job.1")
    sandbox = await machine.create(backend)
    disk = next(Path("/dev", each.name).stat().st_rdev for each in Path("/sys/block").iterdir())
    names = {"folder": machine.folder, "engine": engine.folder, "major": os.major(disk), "minor": os.minor(disk),
             "here": HERE, "holder": pids_of(machine.folder / "job.1")[-1][0]}  # fmt: skip
    assert all(Path(str(names[each])).exists() for each in ("folder", "engine"))
    for who, worked in (("", ALLOWED), ("sudo -n ", (*ALLOWED, *OF_ROOT))):
        lines = [each.format(**names) for each in (*REFUSED, *OF_ROOT, *ALLOWED)]
        (machine.folder / "job.1" / "work" / "tries").write_text("\n".join(lines) + "\n")
        each = f'{who}sh -c "$line" </dev/null >/tmp/said 2>&1 && echo "$line"; sudo -n rm -f /tmp/*'
        _, said = await run(sandbox, f"while read -r line; do {each}; done <tries", name=f"tries{who[:4]}")
        assert sorted(said.splitlines()) == sorted(each.format(**names) for each in worked)
    _, seen = await run(sandbox, "sudo -n ps -eo args=; sudo -n cat /proc/self/status | grep Cap", name="seen")
    assert str(machine.folder) not in seen and "CapEff:\t00000000a80425fb" in seen
    for path in ("/var/run/docker.sock", str(engine.folder / "s"), "/opt/pitstop/life/line", f"{machine.folder}/x"):
        with pytest.raises(BackendError):
            os.close(await soon(sandbox.dial(Unix(path))))


async def test_root_inside_keeps_only_its_own_container_alive_and_the_host_ends_it(
    machine: Machine, backend: Backend, engine: DockerEngine
) -> None:
    sandbox = await machine.create(backend)
    hold = await sandbox.spawn(shell("exec sudo -n sh -c 'exec 9<>/opt/pitstop/life/line; echo held; exec sleep 600'"))
    await soon(hold.grown(0))
    os.kill(pids_of(machine.folder / "job.1")[-1][0], signal.SIGKILL)
    await soon(sandbox.lost())
    assert await machine.backend().adopt(machine.spec()) is None
    await until(lambda: engine.get("/containers/json?all=1")[1] == b"[]\n", "the container lives on")


async def test_a_step_learns_which_limit_it_met(machine: Machine, backend: Backend) -> None:
    mib, spec = 2**20, machine.spec("job.1", limits=Limits(memory=96 * 2**20, processes=40))
    (spec.folder / "work").mkdir()
    with mounted(spec.folder / "work"):
        sandbox = await machine.create(backend, limits=spec.limits)
        greedy = "exec perl -e '$x = \"a\" x (300 << 20)'"
        for name, text, code, hits in (
            ("plain", "exit 3", 3, ()),
            ("memory", greedy, 137, (Hit("memory", 96 * mib),)),
            ("part", f"({greedy}); echo $?", 0, (Hit("memory", 96 * mib),)),
            ("processes", "for i in $(seq 100); do sleep 5 & done", 2, (Hit("processes", 40),)),
            ("disk", "head -c 9000000 /dev/zero >big", 1, (Hit("disk"),)),
            ("room", "rm big; exit 1", 1, ()),
        ):
            process = await soon(sandbox.spawn(shell(text, name=name)))
            said = await output(process)
            ended = await process.wait()
            await process.signal(signal.SIGKILL, tree=True)
            assert (ended.code, ended.hits) == (code, hits), said
        # They are known to whoever comes later.
        await backend.aclose()
        adopted = await machine.backend().adopt(spec)
        assert adopted is not None
        later = await (await adopted.processes())["memory"].wait()
        assert later == Exit(137, 9, (Hit("memory", 96 * mib),))
        await adopted.remove()


class mounted:
    """A small disk."""

    def __init__(self, at: Path) -> None:
        self._at = at

    def __enter__(self) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", self._at], check=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", self._at], check=True)


def test_the_words_of_a_limit_say_how_much_it_was() -> None:
    memory, processes = Hit("memory", 4 * 2**30), Hit("processes", 1024)
    assert [
        endings.words(Exit(137, 9, (memory,)), asked=False),
        endings.words(Exit(1, 0, (memory, processes)), asked=False),
        endings.words(Exit(0, 0, (Hit("memory", 96 * 2**20),)), asked=False),
        endings.words(Exit(1, 0, (Hit("disk"),)), asked=False),
        endings.words(Exit(137, 9, (memory,)), asked=True),
    ] == [
        ["::error::The step was killed: out of memory (limit 4 GiB)"],
        ["::error::A process of the step was killed: out of memory (limit 4 GiB)",
         "::error::The limit of 1024 processes was hit: no more of them could be started"],
        ["::warning::A process of the step was killed: out of memory (limit 96 MiB)"],
        ["::error::The disk of the sandbox is full"],
        [],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("own", "mounts", "expected"),
    [
        ("0::/docker/x\n", "30 1 0:2 / /sys/fs/cgroup rw - cgroup2 none rw\n", (None, "/sys/fs/cgroup/docker/x")),
        ("5:memory:/docker/x\n0::/y\n", "31 1 0:3 / /cg/memory rw shared:1 - cgroup none rw,memory\n",
         ("/cg/memory/docker/x", None)),
        ("5:cpu,memory:/a/b\n", "31 1 0:3 /a /cg rw - cgroup none rw,cpu,memory\n", ("/cg/b", None)),
        ("5:pids:/a\n", "", (None, None)),
    ],
)  # fmt: skip
def test_the_cgroup_of_a_container_is_found(own: str, mounts: str, expected: tuple[str | None, str | None]) -> None:
    found = (meters.cgroup(own, mounts, "memory", 1), meters.cgroup(own, mounts, "memory", 2))
    assert tuple(str(each) if each else None for each in found) == expected
