"""The host's end of a holder's socket, on asyncio: requests and answers, events, descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any, Final

from pitstop_sandbox.backends.port import BackendError
from pitstop_sandbox.holder.frames import MAX_FDS, Decoder, FrameError, Message, encode
from pitstop_sandbox.holder.inside import receive_fds

CHUNK: Final = 64 * 1024

Answer = tuple[Any, tuple[int, ...]]


class Link:
    """`on_event` hears the events; `on_end` is called once, when the holder is gone or the link was closed."""

    def __init__(self, sock: socket.socket, on_event: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_end = on_end
        self._decoder = Decoder()
        self._fds: list[int] = []
        self._answers: dict[int, asyncio.Future[Answer]] = {}
        self._seq = 0
        self._out = bytearray()
        self.closed = False
        self._loop.add_reader(sock, self._readable)

    async def request(self, op: str, **body: Any) -> Answer:
        """Ask the holder. Raises BackendError: its refusal, or `sandbox_lost` when it is gone."""
        if self.closed:
            raise BackendError("sandbox_lost", "the sandbox's holder is gone")
        self._seq += 1
        try:
            self._out += encode({"op": op, "seq": self._seq, **body})
        except FrameError as error:
            raise BackendError("too_large", str(error)) from None
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._answers[self._seq] = future
        self._flush()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                _close_all(future.result()[1])
            raise

    def tell(self, op: str) -> None:
        """Say something that has no answer."""
        if not self.closed:
            self._out += encode({"op": op, "seq": 0})
            self._flush()

    def close(self) -> None:
        """Let go of the holder; it goes on."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        _close_all(self._fds)
        for future in self._answers.values():
            if not future.done():
                future.set_exception(BackendError("sandbox_lost", "the sandbox's holder is gone"))
        self._answers.clear()
        self._on_end()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._sock.send(self._out[:CHUNK])
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._sock, self._flush)
        except OSError:
            self._loop.call_soon(self.close)
        else:
            self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data, fds = receive_fds(self._sock, CHUNK, MAX_FDS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, fds = b"", []
        self._fds += fds
        if not data:
            self.close()
            return
        for message in self._decoder.feed(data):
            self._take(message)

    def _take(self, message: Message) -> None:
        count = message.get("fds", 0)
        fds, self._fds = tuple(self._fds[:count]), self._fds[count:]
        if "event" in message:
            self._on_event(message)
            return
        future = self._answers.pop(message["seq"], None)
        if future is None or future.done():
            # Nobody waits any more (the task was cancelled): the process goes on, its ends are closed.
            _close_all(fds)
        elif error := message.get("error"):
            future.set_exception(BackendError(error["code"], error["text"]))
        else:
            future.set_result((message["ok"], fds))


def _close_all(fds: list[int] | tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
