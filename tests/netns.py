"""Machines on one machine: network namespaces with cables between them. Needs root. All is gone at the end.

Every link lies inside namespaces of ours, so nothing of this machine's own network is touched, and a namespace that is
deleted takes its links with it.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
ROOT: Final = Path(__file__).parent.parent
_CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

WALL: Final = """
table inet wall {
  chain input {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state established,related accept
  }
}
"""
"""Lets nothing in that was not asked for from inside."""
NAT: Final = """
table ip nat {
  chain postrouting { type nat hook postrouting priority 100; oifname wan masquerade; }
}
table ip wall {
  chain forward {
    type filter hook forward priority 0; policy drop;
    iifname lan accept
    ct state established,related accept
  }
}
"""
"""Of a router with the links `wan` and `lan`: those below look like itself, and nobody above can begin anything."""


class Machine:
    """One namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path("/run/netns") / name

    def enter(self, *command: str) -> list[str]:
        """A command line that runs there. Only the network is another; files and processes are this machine's."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command there. Its output."""
        return _run(*self.enter(*command), stdin=stdin)

    def call(self, work: Callable[[], T]) -> T:
        """Do something in a thread that is there, and all that it starts."""
        found: list[T] = []
        broken: list[BaseException] = []

        def inside() -> None:
            try:
                with self.path.open() as file:
                    if _libc.setns(file.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), f"cannot enter {self.name}")
                found.append(work())
            except BaseException as error:
                broken.append(error)

        thread = threading.Thread(target=inside, name=self.name)
        thread.start()
        thread.join()
        if broken:
            raise broken[0]
        return found[0]


class Networks:
    """A switch, and what hangs on it."""

    def __init__(self) -> None:
        self._tag = f"pitstop-{secrets.token_hex(4)}"
        self._machines: list[Machine] = []
        self.switch = self.machine("switch")
        _run("ip", "-n", self.switch.name, "link", "add", "bridge", "type", "bridge")
        _run("ip", "-n", self.switch.name, "link", "set", "dev", "bridge", "up")

    def machine(self, name: str) -> Machine:
        """A machine without any cable."""
        made = Machine(f"{self._tag}-{name}")
        _run("ip", "netns", "add", made.name)
        self._machines.append(made)
        _run("ip", "-n", made.name, "link", "set", "dev", "lo", "up")
        return made

    def plug(self, machine: Machine, port: str, address: str) -> None:
        """A cable from the machine's link `wan` to a port of the switch."""
        self._cable(machine, "wan", address, self.switch, port)
        _run("ip", "-n", self.switch.name, "link", "set", "dev", port, "master", "bridge", "up")

    def behind(self, router: Machine, machine: Machine, inside: str, address: str) -> None:
        """A cable from the machine's link `wan` to the router's link `lan`, which has the address `inside`."""
        self._cable(machine, "wan", address, router, "lan")
        _run("ip", "-n", router.name, "addr", "add", inside, "dev", "lan")
        _run("ip", "-n", router.name, "link", "set", "dev", "lan", "up")
        _run("ip", "-n", machine.name, "route", "add", "default", "via", inside.partition("/")[0])
        router.call(lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
        router.run("nft", "-f", "-", stdin=NAT)

    def pull(self, port: str) -> None:
        """Pull the cable out of a port of the switch."""
        _run("ip", "-n", self.switch.name, "link", "set", "dev", port, "down")

    def put_back(self, port: str) -> None:
        """Put it back."""
        _run("ip", "-n", self.switch.name, "link", "set", "dev", port, "up")

    def _cable(self, machine: Machine, link: str, address: str, other: Machine, end: str) -> None:
        _run("ip", "-n", machine.name, "link", "add", link, "type", "veth", "peer", "name", end, "netns", other.name)
        _run("ip", "-n", machine.name, "addr", "add", address, "dev", link)
        _run("ip", "-n", machine.name, "link", "set", "dev", link, "up")

    def remove(self) -> list[int]:
        """All of it. Returns the processes that were still there; they are killed."""
        left = []
        for machine in self._machines:
            with suppress(subprocess.CalledProcessError):
                left += [int(pid) for pid in _run("ip", "netns", "pids", machine.name).split()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for machine in self._machines:
            with suppress(subprocess.CalledProcessError):
                _run("ip", "netns", "del", machine.name)
        return left


@contextmanager
def networks() -> Iterator[Networks]:
    """For the length of a block, which must leave no process behind."""
    subprocess.run(["sh", str(ROOT / "tools/packages.sh"), "iproute2", "nftables"], check=True)
    made = Networks()
    try:
        yield made
    except BaseException:
        made.remove()
        raise
    left = made.remove()
    assert left == [], "processes were left in the networks"


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=30)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    return done.stdout
