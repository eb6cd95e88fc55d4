"""What a container reaches: the outside, and nothing of this machine, of other jobs, of clouds and private networks; as
the job's user, and as root inside. Each refusal is of something that answers: this machine reaches it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.contract.backend_kit import Machine, run, shell, soon, until
from tests.docker_engine import FULL
from tests.outside import ENDPOINT, METADATA, NAME, NAMES, NEAR, OPENED, PRIVATE, PUBLIC, Outside, outside

from pitstop_sandbox.backends.docker.backend import NO_NETWORK, OUTWARDS, DockerBackend
from pitstop_sandbox.backends.docker.cables import Cables, clear
from pitstop_sandbox.backends.docker.container import Settings
from pitstop_sandbox.backends.docker.network import Outward
from pitstop_sandbox.backends.port import Backend, BackendError, Sandbox, Tcp

ATTACKS = Path(__file__).parents[1] / "attacks"
HERE = "/opt/pitstop/bin"
WHO = ("root", "runner")


@pytest.fixture
def kind() -> str:
    return "docker"


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    if os.geteuid() != 0:
        pytest.skip("docker: dockerd needs root")
    with outside() as made:
        yield made


@pytest.fixture
def outward(tmp_path: Path) -> Outward:
    return Outward(root=tmp_path, endpoints=(ENDPOINT,), resolvers=(NAMES,), open=(IPv4Network(f"{OPENED}/32"),))


@pytest.fixture
def backend(machine: Machine, world: Outside, outward: Outward) -> Iterator[Backend]:
    yield machine.backend(cables=Cables(outward))


def saved() -> str:
    """What the kernel has of rules."""
    return "".join(subprocess.run([f"{name}-save"], capture_output=True, text=True, check=True).stdout
                   for name in ("iptables", "ip6tables"))  # fmt: skip


async def address(sandbox: Sandbox) -> str:
    """The container's own."""
    _, said = await run(sandbox, "hostname -I", name="address")
    (own,) = said.split()
    return own


def host_addresses() -> list[str]:
    """This machine's, of both families, but for the loopback's and link-local ones."""
    found = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    return [each["local"] for link in found for each in link["addr_info"] if each["scope"] == "global"]


async def reached(sandbox: Sandbox, targets: list[tuple[str, int]], name: str) -> list[str]:
    """`<who> <host> <answer>`, as the job's user and as root inside, in order."""
    reach = f"{HERE}/reach {' '.join(f'{host},{port}' for host, port in targets)}"
    _, said = await run(sandbox, f"{reach}; sudo -n {reach}", name=name)
    return sorted(said.splitlines())


def arm(machine: Machine, *names: str) -> None:
    """Gives jobs the programs in tests/attacks."""
    for name in names:
        shutil.copytree(ATTACKS, machine.spec(name).folder / "bin", dirs_exist_ok=True)


def answers(host: str, port: int) -> bool:
    """Does this machine reach it?"""
    with socket.create_connection((host, port), 10) as connection:
        return bool(connection.recv(100))


class Host:
    """A server on every address of this machine, as NATS is, which says `host`."""

    def __init__(self) -> None:
        self._server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self._server.setblocking(False)
        self.port = int(self._server.getsockname()[1])
        self.came = 0

    def __enter__(self) -> Host:
        asyncio.get_running_loop().add_reader(self._server, self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._server)
        self._server.close()

    def _accept(self) -> None:
        self.came += 1
        connection, _ = self._server.accept()
        with connection:
            connection.sendall(b"host\n")


async def test_the_outside_is_reached_and_nothing_that_is_closed(
    machine: Machine, backend: Backend, world: Outside
) -> None:
    arm(machine, "a.1", "b.1")
    one, two = await asyncio.gather(machine.create(backend, "a.1"), machine.create(backend, "b.1"))
    assert one.notes == (OUTWARDS,)
    other = await address(two)
    serving = await two.spawn(shell(f"exec {HERE}/serve 4222", name="serve"))
    await soon(serving.grown(0))
    port = world.port
    with Host() as host:
        mine = host_addresses()
        cables = [each for each in mine if each.startswith("10.222.")]
        assert len(cables) >= 2 and NEAR in mine
        shut = [(ENDPOINT, port), (METADATA, port), (PRIVATE, port), (NAMES, port)]
        own = [(each, host.port) for each in (*mine, "127.0.0.1", "::1", "0.0.0.0")]
        for target in (*shut[:3], *own):
            assert await asyncio.to_thread(answers, *target), target
        assert await reached(two, [(other, 4222)], "control") == [f"{who} {other} job" for who in WHO]
        came = host.came
        said = await reached(one, [(PUBLIC, port), (OPENED, port), *shut, *own, (other, 4222)], "attack")
        expected = sorted(f"{who} {to} {NEAR}" for who in WHO for to in (PUBLIC, OPENED))
        assert said == expected
        # What -L and -D open, and a person inside of it: the same network.
        for to, at in (*shut[:3], *own, (other, 4222)):
            with pytest.raises(BackendError):
                os.close(await soon(one.dial(Tcp(to, at))))
        os.close(await soon(one.dial(Tcp(PUBLIC, port))))
        assert host.came == came
    _, names = await run(one, f"getent ahostsv4 {NAME} | head -1; cat /etc/resolv.conf", name="names")
    assert names.split()[:2] == [PUBLIC, "STREAM"] and f"nameserver {NAMES}\n" in names


async def test_nobody_outside_reaches_a_job_and_no_job_poses_as_another(
    machine: Machine, backend: Backend, world: Outside
) -> None:
    arm(machine, "a.1", "b.1")
    one, two = await asyncio.gather(machine.create(backend, "a.1"), machine.create(backend, "b.1"))
    mine, other = await address(one), await address(two)
    pose = f"{HERE}/pose {other} {PUBLIC} {world.port}"
    assert await run(one, f"{pose} posing", name="user") == (1, "no raw socket: Operation not permitted\n")
    assert await run(one, f"sudo -n {pose} posing", name="root") == (0, "")
    honest = f"sudo -n {HERE}/pose {mine} {PUBLIC} {world.port} honest"
    assert await run(one, honest, name="honest") == (0, "")
    await until(lambda: "honest" in world.heard, "raw datagrams do not go out at all")
    assert world.heard == ["honest"]
    # Poisoning the neighbours: two jobs have no segment in common, and this machine asks each only on its own cable.
    assert (await run(one, f"{HERE}/poison {other}", name="quiet"))[1] == "no packet socket: Operation not permitted\n"
    assert await run(one, f"sudo -n {HERE}/poison {other}", name="poison") == (0, "")
    assert mine not in (await run(two, "cat /proc/net/arp", name="neighbours"))[1]
    assert await reached(two, [(PUBLIC, world.port)], "still") == [f"{who} {PUBLIC} {NEAR}" for who in WHO]
    for setting in ("forwarding", "rp_filter"):
        assert (await run(one, f"sudo -n sh -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/{setting}'", name=setting))[0]


async def test_rules_that_somebody_removed_come_back_and_without_them_there_is_no_network(
    machine: Machine, backend: DockerBackend, outward: Outward, world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved()
    arm(machine, "job.1")
    sandbox = await machine.create(backend)
    standing = saved()
    root = machine.folder.parent
    with Host() as host:
        targets = [(host_addresses()[0], host.port), (METADATA, world.port), (PUBLIC, world.port)]
        for touched in (["iptables", "-F", f"{outward.tag}-out"], ["iptables", "-I", "INPUT", "-j", "ACCEPT"],
                        ["iptables", "-D", "FORWARD", "1"], ["ip6tables", "-D", "INPUT", "1"]):  # fmt: skip
            subprocess.run(touched, check=True)
            await backend.mine(root)
            got = await reached(sandbox, targets, f"{touched[0]}{touched[1]}-{touched[2]}")
            assert got == [f"{who} {PUBLIC} {NEAR}" for who in WHO]
        subprocess.run(["iptables", "-D", "INPUT", "-j", "ACCEPT"], check=True)
        assert _rules(saved()) == _rules(standing)
        # The host is restarted: its jobs go on as they were.
        await backend.aclose()
        assert _rules(saved()) == _rules(standing)
        backend = machine.backend(cables=Cables(outward))  # type: ignore[assignment]
        adopted = await backend.adopt(machine.spec())
        assert adopted is not None
        assert await reached(adopted, targets, "again") == [f"{who} {PUBLIC} {NEAR}" for who in WHO]
        subprocess.run(["iptables", "-F", f"{outward.tag}-no"], check=True)
        with monkeypatch.context() as patch:
            patch.setenv("PATH", programs(machine, ip=f"exec {shutil.which('ip')}"))
            await backend.mine(root)
        assert await reached(adopted, targets, "cut") == []
    await adopted.remove()
    await backend.aclose()
    assert outward.tag in standing and outward.tag not in saved()
    assert _rules(saved()) == _rules(before)


def programs(machine: Machine, **scripts: str) -> str:
    """A folder for PATH."""
    folder = machine.folder / "programs"
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name).write_text(f'#!/bin/sh\n{script} "$@"\n')
        (folder / name).chmod(0o755)
    return str(folder)


def _rules(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if line.startswith("-"))


async def test_where_no_rules_can_be_set_there_is_no_network(
    machine: Machine, outward: Outward, world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = machine.backend(cables=Cables(outward))
    with monkeypatch.context() as patch:
        patch.setattr("pitstop_sandbox.backends.docker.walls._PROGRAMS", {"no-such-iptables": "iptables"})
        works, found = await backend.probe()
    assert works and NO_NETWORK in found and "not installed: no-such-iptables (iptables)" in found
    sandbox = await machine.create(backend)
    assert sandbox.notes[0].startswith(f"{NO_NETWORK}; ")
    assert (await run(sandbox, "ls /sys/class/net", name="links"))[1].split() == ["lo"]


async def test_a_host_that_lets_containers_in_is_not_used(
    machine: Machine, outward: Outward, world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real try of the probe finds what no look at the rules does."""
    works, found = await machine.backend(cables=Cables(outward)).probe()
    assert works and OUTWARDS in found
    lenient = f"sed 's/-j REJECT.*/-j ACCEPT/' | exec {shutil.which('iptables-restore')}"
    monkeypatch.setenv("PATH", f"{programs(machine, **{'iptables-restore': lenient})}:{os.environ['PATH']}")
    works, found = await machine.backend(cables=Cables(outward)).probe()
    assert not works and "containers reach this machine at 10.222." in found


async def test_a_host_without_a_network_for_jobs_clears_what_it_had(
    machine: Machine, outward: Outward, world: Outside
) -> None:
    backend = machine.backend(cables=Cables(outward))
    await machine.create(backend)
    await backend.aclose()  # as when it is killed
    await clear(outward)
    assert outward.tag in saved(), "a job needs it"
    adopted = await machine.backend(cables=Cables(outward)).adopt(machine.spec())
    assert adopted is not None
    await adopted.remove()
    await clear(outward)
    assert outward.tag not in saved()


async def test_only_runc_is_a_runtime(machine: Machine) -> None:
    for name, text in (("runsc", "has no runtime runsc"), ("other", "is not runc"), ("runc", "")):
        works, found = await machine.backend(settings=Settings(image=FULL, runtime=name)).probe()
        assert works == (name == "runc") and text in found, found
