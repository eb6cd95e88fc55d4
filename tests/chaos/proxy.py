"""A TCP proxy before nats-server, one for each service: it can cut the connection, hold all bytes both ways, or let
them pass slowly. And a client that never reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket

_CHUNK = 1 << 16
_EARS = 20


class Proxy:
    """Listens on a port of its own and passes bytes on. What is under way when the connection is cut is lost."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._bytes_a_second = 0
        self._server: asyncio.Server
        self.port = 0

    @property
    def url(self) -> str:
        """For a client of nats-server."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it listens."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Both ends see a reset; they may connect again at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """No byte passes from now on, and nobody is told."""
        self._flows.clear()

    def release(self) -> None:
        """Bytes pass again."""
        self._flows.set()

    def slow(self, bytes_a_second: int) -> None:
        """Bytes to the service pass at this rate from now on; 0: as fast as they come."""
        self._bytes_a_second = bytes_a_second

    async def close(self) -> None:
        """Leaves no task."""
        self._server.close()
        self.release()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError):
                await self._flows.wait()
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
                self._writers.add(far_writer)
                try:
                    await self._both(reader, writer, far_reader, far_writer)
                finally:
                    self._writers.discard(far_writer)
                    far_writer.transport.abort()
        except asyncio.CancelledError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)

    async def _both(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                    far_reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter) -> None:  # fmt: skip
        ways = [
            asyncio.ensure_future(self._pass_on(reader, far_writer)),
            asyncio.ensure_future(self._pass_on(far_reader, writer, home=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, home: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if home and self._bytes_a_second:
                    await asyncio.sleep(len(data) / self._bytes_a_second)
                writer.write(data)
                await writer.drain()


class Deaf:
    """Subscribes to everything, many times, and reads nothing: the server must cut it off, and nobody else notice."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    async def listen(self, port: int) -> None:
        """Connect, unless the server is away, and stop reading."""
        self.close()
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.setblocking(False)
        wants = "".join(f"SUB > {number}\r\n" for number in range(_EARS))
        with contextlib.suppress(OSError):
            loop = asyncio.get_running_loop()
            await loop.sock_connect(self._socket, ("127.0.0.1", port))
            await loop.sock_sendall(self._socket, f'CONNECT {{"verbose": false}}\r\n{wants}'.encode())

    def close(self) -> None:
        """Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
