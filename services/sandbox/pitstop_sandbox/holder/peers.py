"""The connections of a holder: of the one who started it, and of host processes that came later."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from pitstop_sandbox.holder import frames
from pitstop_sandbox.holder.frames import Message
from pitstop_sandbox.holder.loop import Loop
from pitstop_sandbox.holder.peer import MAX_WAITING, Peer, may_connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LAST_WORD_SECONDS: Final = 1.0
BACKLOG: Final = 8


class Peers:
    """`handle` is called with each request; a ValueError, KeyError or TypeError of it ends the connection."""

    def __init__(self, loop: Loop, starter_uid: int, handle: Callable[[Peer, Message], None]) -> None:
        self._loop = loop
        self._starter_uid = starter_uid
        self._handle = handle
        self._by_fd: dict[int, Peer] = {}
        self._alone_since = time.monotonic()
        self._beat_at = 0.0

    def add(self, sock: socket.socket) -> None:
        """Serve a connection."""
        peer = Peer(sock)
        self._by_fd[sock.fileno()] = peer
        self._loop.watch(sock.fileno(), lambda: self._serve(peer))

    def listen(self) -> None:
        """In the current folder."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(frames.SOCKET)
        listener.listen(BACKLOG)
        listener.setblocking(False)
        self._loop.watch(listener.fileno(), lambda: self._accept(listener))

    def alone(self) -> float:
        """Seconds since the last connection ended; 0 while there is one."""
        return 0.0 if self._by_fd else time.monotonic() - self._alone_since

    def beat(self) -> None:
        """The host process says that it lives, and that NATS has heard it."""
        self._beat_at = time.monotonic()

    def silent(self) -> float:
        """Seconds since it last said so; 0 when it never did."""
        return time.monotonic() - self._beat_at if self._beat_at else 0.0

    @property
    def behind(self) -> bool:
        """Does one of them not read what it is told?"""
        return any(peer.waiting > MAX_WAITING for peer in self._by_fd.values())

    def send(self, peer: Peer, message: Message, fds: list[int] | None = None) -> None:
        """To one of them."""
        peer.send(message, fds)
        if peer.waiting:
            self._await(peer)

    def tell(self, event: Message) -> None:
        """To all of them."""
        for peer in list(self._by_fd.values()):
            self.send(peer, event)

    def last_words(self) -> None:
        """Give them a moment to take what is left to say."""
        for peer in self._by_fd.values():
            peer.sock.settimeout(LAST_WORD_SECONDS)
            peer.flush()

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if may_connect(sock, self._starter_uid):
            self.add(sock)
        else:
            sock.close()

    def _serve(self, peer: Peer) -> None:
        peer.flush()
        requests: list[Message] | None = []
        if peer.waiting <= MAX_WAITING:
            try:
                requests = peer.receive()
                for request in requests or ():
                    self._handle(peer, request)
            except (ValueError, KeyError, TypeError) as error:
                os.write(2, f"a connection was dropped: {error!r}\n".encode())
                requests = None
        if requests is None:
            self._drop(peer)
        else:
            self._await(peer)

    def _await(self, peer: Peer) -> None:
        fd = peer.sock.fileno()
        if fd in self._by_fd:
            read = peer.waiting <= MAX_WAITING
            self._loop.watch(fd, lambda: self._serve(peer), read=read, write=peer.waiting > 0)

    def _drop(self, peer: Peer) -> None:
        fd = peer.sock.fileno()
        if self._by_fd.pop(fd, None):
            self._loop.forget(fd)
            peer.close()
            self._alone_since = time.monotonic()
