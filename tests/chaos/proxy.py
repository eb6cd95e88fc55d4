"""A TCP proxy before nats-server, one for each service: it can cut the connection, or hold all bytes both ways."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK = 1 << 16


class Proxy:
    """Listens on a port of its own and passes bytes on. What is under way when the connection is cut is lost."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server
        self.port = 0

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
            asyncio.ensure_future(self._pass_on(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
