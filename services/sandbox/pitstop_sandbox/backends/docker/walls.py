"""The rules about the network of jobs, in the kernel of this machine. See network.py for what they say."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from pitstop_sandbox.backends.docker import network
from pitstop_sandbox.backends.docker.network import Outward
from pitstop_sandbox.backends.port import BackendError

log = logging.getLogger(__name__)

SAY_SECONDS: Final = 30
_PROGRAMS: Final = {"ip": "iproute2", "nsenter": "util-linux", "iptables": "iptables", "ip6tables": "iptables"}
_SETTINGS: Final = Path("/proc/sys/net")


class Walls:
    """Those of one host. Methods raise BackendError `network_failed`."""

    def __init__(self, outward: Outward) -> None:
        self._outward = outward
        self._tag = outward.tag
        self._standing: tuple[str, ...] = ()
        self._endpoints: dict[str, list[str]] = {}
        self._turn = asyncio.Lock()

    async def stand(self) -> None:
        """They stand when this returns: made anew where somebody touched them."""
        async with self._turn:
            await asyncio.to_thread(self._stand)

    async def take_down(self, when: Callable[[], bool]) -> None:
        """Nothing of them is left, if that is so when it is asked for."""
        async with self._turn:
            if await asyncio.to_thread(when):
                await asyncio.to_thread(self._take_down)

    def _stand(self) -> None:
        if missing := [f"{name} ({package})" for name, package in _PROGRAMS.items() if not shutil.which(name)]:
            raise failed(f"not installed: {', '.join(missing)}")
        if read_setting("ipv4/ip_forward") != "1":
            raise failed("this machine forwards nothing (the engine turns that on, where it may): "
                         "sysctl -w net.ipv4.ip_forward=1")  # fmt: skip
        addresses = self._look_up()
        saved = run(["iptables-save"])
        if not self._standing or not self._untouched(saved):
            _restore("iptables", network.rules(self._outward, addresses, saved))
            if has_ipv6():
                _restore("ip6tables", network.rules6(self._outward, run(["ip6tables-save"])))
            if self._standing:
                log.warning("the rules for the network of jobs were touched by somebody: they are made anew")
            self._standing = self._lines(run(["iptables-save"]))
            if not self._standing:
                raise failed("iptables-restore took the rules, and iptables-save does not show them")

    def _untouched(self, saved: str) -> bool:
        return self._lines(saved) == self._standing and network.first_in_line(self._tag, saved)

    def _lines(self, saved: str) -> tuple[str, ...]:
        """Of both kinds."""
        saved6 = run(["ip6tables-save"]) if has_ipv6() else ""
        return (*network.standing(self._tag, saved), *network.standing(self._tag, saved6))

    def _look_up(self) -> list[str]:
        """The addresses of the endpoints as they are now; for a name that is not found now, as they were. With others
        than before, the rules do not stand any more."""
        found = {name: _addresses(name) or self._endpoints.get(name, []) for name in self._outward.endpoints}
        if found != self._endpoints:
            self._endpoints, self._standing = found, ()
        return [each for all_of_it in found.values() for each in all_of_it]

    def _take_down(self) -> None:
        for program in ("iptables", *(["ip6tables"] if has_ipv6() else [])):
            with contextlib.suppress(BackendError):
                if lines := network.removal(self._tag, run([f"{program}-save"])):
                    _restore(program, lines)
        self._standing = ()


def has_ipv6() -> bool:
    """Does this machine's kernel speak it."""
    return Path("/proc/net/if_inet6").exists()


def read_setting(path: str) -> str:
    """Of the kernel's network; empty when there is none."""
    try:
        return (_SETTINGS / path).read_text().strip()
    except OSError:
        return ""


def set_setting(path: str, value: str) -> None:
    """Raises BackendError."""
    try:
        (_SETTINGS / path).write_text(value)
    except OSError as error:
        raise failed(f"net.{path.replace('/', '.')} cannot be set: {error}") from None


def run(argv: list[str], text: str = "", *fds: int) -> str:
    """What a program says. Raises BackendError."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=SAY_SECONDS, check=False,
                              pass_fds=fds)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise failed(f"{argv[0]}: {error}") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise failed(f"{' '.join(argv[:2])}: {said[0] if said else f'ended with {done.returncode}'}")
    return done.stdout


def failed(why: str) -> BackendError:
    """`network_failed`."""
    return BackendError("network_failed", f"the network of jobs cannot be made: {why}")


def _restore(program: str, lines: str) -> None:
    run([f"{program}-restore", "--noflush", "--wait", "10"], lines)


def _addresses(name: str) -> list[str]:
    """Of IPv4; those of the loopback are closed already."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(each[4][0]) for each in found if not IPv4Address(each[4][0]).is_loopback})
