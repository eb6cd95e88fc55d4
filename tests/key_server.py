"""A server of public keys, over real HTTP, that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class KeyServer:
    """`pages`: path -> (status, headers, body). `held`: answers wait until it is set again."""

    port: int = 0
    pages: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    going: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, path: str, body: str | bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.pages[path] = (status, headers or {}, body.encode() if isinstance(body, str) else body)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            path = head[0].split(" ")[1]
            names = (line.partition(": ") for line in head[1:] if line)
            self.asked.append((path, {name.lower(): value for name, _, value in names}))
            await self.going.wait()
            status, headers, body = self.pages.get(path, (404, {}, b"not here"))
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def key_server() -> AsyncIterator[KeyServer]:
    """Listening on a free port of the loopback."""
    made = KeyServer()
    made.going.set()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.going.set()
        server.close()
        await server.wait_closed()
