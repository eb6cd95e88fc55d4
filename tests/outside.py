"""Another machine, for tests of what a sandbox reaches: a network namespace with a cable to this one, and addresses as
clouds, the internet and private networks have them. What it serves on a port says who asked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pitstop_sandbox.holder import kernel

NEAR: Final = "198.51.100.1"
"""This machine's end of the cable: the sender that is seen there of whatever this machine lets out."""
FAR: Final = "198.51.100.2"
PUBLIC: Final = "203.0.113.7"
ENDPOINT: Final = "203.0.113.9"
"""A public address that the tests say is NATS's."""
NAMES: Final = "10.77.0.53"
"""Serves names. A private address, as it often has."""
METADATA: Final = "169.254.169.254"
PRIVATE: Final = "10.77.0.9"
OPENED: Final = "10.78.0.9"
"""A private one that the tests' settings open."""
ADDRESSES: Final = (PUBLIC, ENDPOINT, NAMES, METADATA, PRIVATE, OPENED)
NAME: Final = "outside.test"


class Outside:
    """`port`: of TCP, on every address. `heard`: who sent datagrams to that port, in order."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: list[str] = []


@contextlib.contextmanager
def outside() -> Iterator[Outside]:
    """For the length of a block; needs root. One at a time on a machine: the addresses are the same each time."""
    with (Path(tempfile.gettempdir()) / "pitstop-test-outside").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _outside() as made:
            yield made


@contextlib.contextmanager
def _outside() -> Iterator[Outside]:
    space, cable = f"pitstop-{secrets.token_hex(3)}", f"out{secrets.token_hex(3)}"
    _run("ip", "netns", "add", space)
    stop_reader, stop = os.pipe()
    made = Outside()
    servers: list[threading.Thread] = []
    try:
        _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _run("ip", "addr", "add", f"{NEAR}/30", "dev", cable)
        _run("ip", "link", "set", cable, "up")
        _run("ip", "-n", space, "addr", "add", f"{FAR}/30", "dev", "eth0")
        for name in ("eth0", "lo"):
            _run("ip", "-n", space, "link", "set", name, "up")
        for address in ADDRESSES:
            _run("ip", "-n", space, "addr", "add", f"{address}/32", "dev", "lo")
            _run("ip", "route", "add", f"{address}/32", "via", FAR)
        _run("ip", "-n", space, "route", "add", "default", "via", NEAR)
        sockets = _sockets(space)
        made.port = sockets[0].getsockname()[1]
        servers.append(threading.Thread(target=_serve, args=(made, sockets, stop_reader)))
        servers[0].start()
        yield made
    finally:
        os.close(stop)
        for server in servers:
            server.join()
        os.close(stop_reader)
        subprocess.run(["ip", "link", "del", cable], check=False, capture_output=True)
        _run("ip", "netns", "del", space)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def _sockets(space: str) -> list[socket.socket]:
    """TCP and UDP on a port, and UDP on that of names: made in the namespace, by a thread that goes there."""
    made: list[socket.socket] = []

    def make() -> None:
        with Path(f"/run/netns/{space}").open("rb") as place:
            kernel.setns(place.fileno())
        made.append(socket.create_server(("0.0.0.0", 0)))
        for address in (("0.0.0.0", made[0].getsockname()[1]), (NAMES, 53)):
            made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            made[-1].bind(address)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert len(made) == 3, "no sockets outside"
    return made


def _serve(outside: Outside, sockets: list[socket.socket], stop: int) -> None:
    stream, datagrams, names = sockets
    wanted: list[socket.socket | int] = [*sockets, stop]
    while stop not in (ready := select.select(wanted, [], [])[0]):
        if stream in ready:
            with stream.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(connection.getpeername()[0].encode() + b"\n")
        if datagrams in ready:
            outside.heard.append(f"{datagrams.recvfrom(100)[0].decode()}")
        if names in ready:
            question, asker = names.recvfrom(512)
            with contextlib.suppress(OSError):
                names.sendto(_answer(question), asker)
    for each in sockets:
        each.close()


def _answer(question: bytes) -> bytes:
    """One address for every question for one; for others, none."""
    end = question.index(b"\0", 12) + 5
    wants = question[end - 4 : end - 2] == b"\0\1"
    head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, int(wants), 0, 0) + question[12:end]
    return head + (b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(PUBLIC) if wants else b"")
