"""Cables from containers to this machine: made when a container has started, gone with it. No rules, no cable."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import socket
import time
from pathlib import Path
from typing import Final

import msgspec

from pitstop_sandbox.backends.docker import network
from pitstop_sandbox.backends.docker.network import Outward, Pair
from pitstop_sandbox.backends.docker.walls import Walls, failed, has_ipv6, run, set_setting
from pitstop_sandbox.backends.port import BackendError, Sandbox, Tcp

log = logging.getLogger(__name__)

TRIES: Final = 20
LOOK_SECONDS: Final = 5.0
GONE_SECONDS: Final = 5.0
"""For the cables of containers that have just ended: the kernel takes them away a little later."""
_NAMES: Final = ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
"""The second where the first names only the loopback."""
_INTERFACES: Final = Path("/sys/class/net")
_ROUTES: Final = Path("/proc/net/route")


class Cables:
    """Those of one host. Methods raise BackendError `network_failed`."""

    def __init__(self, outward: Outward) -> None:
        found = outward.resolvers or tuple(_resolvers())
        asked = tuple(each for each in found if not _is_local(each))
        self._outward = msgspec.structs.replace(outward, resolvers=asked)
        self._tag = outward.tag
        self._walls = Walls(self._outward)
        self._looked = -LOOK_SECONDS
        self._looking: asyncio.Task[None] | None = None

    @property
    def resolvers(self) -> tuple[str, ...]:
        """The name servers that containers can ask."""
        return self._outward.resolvers

    async def set_up(self) -> None:
        """The rules stand when this returns."""
        await self._walls.stand()

    async def keep(self) -> None:
        """The rules are looked at. Where they cannot be mended, every cable of ours is cut."""
        try:
            await self._walls.stand()
        except BackendError as error:
            cut = await asyncio.to_thread(self._cut_all)
            log.error("the rules for the network of jobs do not stand; %d jobs have none now: %s", cut, error)

    def look(self) -> None:
        """Like `keep`, and nobody waits for it; not again within LOOK_SECONDS."""
        if time.monotonic() - self._looked > LOOK_SECONDS and (self._looking is None or self._looking.done()):
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(self.keep())

    async def connect(self, folder: Path, pid: int) -> Pair:
        """Give the container of a job's folder, whose process 1 has this pid, its cable. After `set_up`."""
        return await asyncio.to_thread(self._connect, _label(folder), pid)

    async def disconnect(self, folder: Path) -> None:
        """Its cable is gone when this returns."""
        await asyncio.to_thread(self._cut, _label(folder))

    async def aclose(self, *, last: bool) -> None:
        """Let go. The rules go with the last cable. `last`: no container is left, or all are about to be gone."""
        if self._looking is not None:
            await self._looking
        await self._walls.take_down(lambda: self._is_bare(GONE_SECONDS if last else 0.0))

    def ends(self) -> list[str]:
        """This machine's addresses at the cables there are in the range, also those of other hosts."""
        known = network.routes(_ROUTES.read_text())
        return [str(each[0]) for each in known
                if each.prefixlen == network.PAIR and each.subnet_of(self._outward.subnets)]  # fmt: skip

    def _connect(self, label: str, pid: int) -> Pair:
        try:
            inside = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        except OSError as error:
            raise failed(f"the container has ended: {error}") from None
        try:
            if os.fstat(inside).st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
                raise failed("the container has ended, and its pid is another's")
            place = f"/proc/self/fd/{inside}"
            pair = self._plug_in(label, place, inside)
            lines = ("link set eth0 up", f"addr add {pair.inside}/{network.PAIR} dev eth0",
                     f"route add default via {pair.host}")  # fmt: skip
            try:
                run(["nsenter", f"--net={place}", "ip", "-batch", "-"], "\n".join(lines) + "\n", inside)
            except BackendError:
                self._cut(label)
                raise
            return pair
        finally:
            os.close(inside)

    def _plug_in(self, label: str, place: str, inside: int) -> Pair:
        known = _ROUTES.read_text()
        mtu = _mtu(network.outward_interface(known))
        pairs = network.free_pairs(self._outward.subnets, network.routes(known), random.SystemRandom())
        for pair, _ in zip(pairs, range(TRIES), strict=False):
            name = pair.name(self._tag)
            lines = (f"link add {name} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {place}",
                     f"link set {name} alias {label}")  # fmt: skip
            try:
                run(["ip", "-batch", "-"], "\n".join(lines) + "\n", inside)
            except BackendError as error:
                if "File exists" in str(error):
                    continue
                raise
            try:
                _close_in(name)
                run(["ip", "-batch", "-"], f"addr add {pair.host}/{network.PAIR} dev {name}\nlink set {name} up\n")
                if network.routes(_ROUTES.read_text()).count(pair.network) == 1:
                    return pair
            except BaseException:
                _delete(name)
                raise
            _delete(name)  # another host had the same thought at the same time
        raise failed(
            f"no two addresses of {self._outward.subnets} are free: PITSTOP_DOCKER_SUBNETS names another range"
        )

    def _cables(self) -> list[str]:
        return [each.name for each in _INTERFACES.iterdir() if each.name.startswith(f"{self._tag}-")]

    def _is_bare(self, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while self._cables():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _cut(self, label: str) -> None:
        for name in self._cables():
            with contextlib.suppress(OSError):
                if (_INTERFACES / name / "ifalias").read_text().strip() == label:
                    _delete(name)

    def _cut_all(self) -> int:
        names = self._cables()
        for name in names:
            _delete(name)
        return len(names)


async def clear(outward: Outward) -> None:
    """Rules that an earlier process of this host left, when it had a network for jobs and none of these is there."""
    if os.geteuid() == 0:
        cables = Cables(outward)
        await cables.aclose(last=False)


async def closed(sandbox: Sandbox, cables: Cables) -> None:
    """A real try: is this machine out of reach from a sandbox? Raises BackendError `network_open`."""
    with socket.create_server(("", 0)) as server:
        for host in await asyncio.to_thread(cables.ends):
            try:
                os.close(await sandbox.dial(Tcp(host, server.getsockname()[1])))
            except BackendError:
                continue
            raise BackendError(
                "network_open", f"containers reach this machine at {host}: something lets them in before the rules "
                "that close it are asked. PITSTOP_SANDBOX_NETWORK=none does without a network",
            )  # fmt: skip


def _label(folder: Path) -> str:
    """Is on a cable, in the kernel: whose it is. 255 letters would be too few for some folders."""
    return hashlib.sha256(str(folder).encode()).hexdigest()


def _close_in(name: str) -> None:
    """The interface's own refusals: IPv6, senders that are not the container, questions for other addresses of ours."""
    for setting, value in (("rp_filter", 1), ("arp_ignore", 2), ("accept_redirects", 0), ("send_redirects", 0)):
        set_setting(f"ipv4/conf/{name}/{setting}", str(value))
    if has_ipv6():
        set_setting(f"ipv6/conf/{name}/disable_ipv6", "1")


def _resolvers() -> list[str]:
    for path in _NAMES:
        with contextlib.suppress(OSError):
            if found := network.nameservers(Path(path).read_text()):
                return found
    return []


def _is_local(address: str) -> bool:
    """Is it one of this machine's own?"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((address, 0))
        except OSError:
            return False
    return True


def _mtu(interface: str) -> int:
    try:
        return int((_INTERFACES / interface / "mtu").read_text()) if interface else 1500
    except (OSError, ValueError):
        return 1500


def _delete(name: str) -> None:
    with contextlib.suppress(BackendError):
        run(["ip", "link", "del", name])
