"""A host process that does not read: nothing blocks, nothing is torn, no descriptor is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pitstop_sandbox.holder.frames import Decoder, Message
from pitstop_sandbox.holder.inside import receive_fds
from pitstop_sandbox.holder.peer import MAX_WAITING, Peer, may_connect

Pair = tuple[Peer, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    peer = Peer(ours)
    yield peer, theirs
    peer.close()
    theirs.close()


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_is_not_taken_waits_and_arrives_whole_later(pair: Pair) -> None:
    peer, theirs = pair
    sent: list[Message] = [{"event": "grew", "id": str(n), "text": "x" * 1000} for n in range(3000)]
    for message in sent:
        peer.send(message)
    assert peer.waiting > MAX_WAITING
    decoder = Decoder()
    got: list[Message] = []
    theirs.settimeout(5)
    while len(got) < len(sent):
        got += decoder.feed(theirs.recv(65536))
        peer.flush()
    assert got == [{**message, "fds": 0} for message in sent]
    assert peer.waiting == 0


def test_a_descriptor_is_passed_with_its_message_and_closed_here(pair: Pair) -> None:
    peer, theirs = pair
    reader, writer = os.pipe()
    peer.send({"ok": 1}, [writer])
    assert not is_open(writer)
    data, fds = receive_fds(theirs, 65536, 8)
    assert Decoder().feed(data) == [{"ok": 1, "fds": 1}]
    os.write(fds[0], b"through")
    assert os.read(reader, 10) == b"through"
    assert not os.get_inheritable(fds[0])
    os.close(fds[0])
    os.close(reader)


def test_descriptors_that_cannot_be_sent_are_closed(pair: Pair) -> None:
    peer, theirs = pair
    while peer.waiting == 0:
        peer.send({"text": "x" * 60_000})
    kept, passed = os.pipe()
    peer.send({"ok": 1}, [passed])
    assert is_open(passed)
    theirs.close()
    peer.flush()
    assert not is_open(passed)
    assert peer.receive() is None
    os.close(kept)


def test_only_root_and_the_starter_may_connect(pair: Pair) -> None:
    peer, _ = pair
    assert may_connect(peer.sock, os.geteuid())
    assert may_connect(peer.sock, os.geteuid() + 1) == (os.geteuid() == 0)
