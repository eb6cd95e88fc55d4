"""Three nats-servers on loopback as one cluster. Between each two of them, and between a service and each of them, is a
proxy: a server can be killed, stopped, or cut off from everybody while it runs on."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from itertools import permutations
from pathlib import Path
from typing import Final

from tests.chaos.proxy import Proxy

from pitstop_common.embedded import EmbeddedServer

NODES: Final = 3
_NOWHERE: Final = "127.0.0.1:1"
"""What a server tells others of its own address: they are to meet through the proxies only."""


class Node(EmbeddedServer):
    """One server."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder)
        self.name, self.route_port = name, _free_port()
        self.routes: list[Proxy] = []
        """Where it finds others."""

    def _config(self) -> str:
        routes = ", ".join(json.dumps(proxy.url) for proxy in self.routes)
        return super()._config() + (
            f"server_name: {self.name}\n"
            f'cluster {{ name: chaos, listen: "127.0.0.1:{self.route_port}", advertise: "{_NOWHERE}",'
            f" no_advertise: true, pool_size: -1, connect_retries: 1000, routes: [{routes}] }}\n"
        )


class Doors:
    """The proxies of one service, one to each server. In the place of a single one."""

    def __init__(self, ports: list[int]) -> None:
        self.to = [Proxy(port) for port in ports]

    @property
    def url(self) -> str:
        """All of them."""
        return ",".join(proxy.url for proxy in self.to)

    async def start(self) -> None:
        """Returns when all listen."""
        for proxy in self.to:
            await proxy.start()

    def cut(self) -> None:
        """As of each."""
        for proxy in self.to:
            proxy.cut()

    def hold(self) -> None:
        """As of each."""
        for proxy in self.to:
            proxy.hold()

    def release(self) -> None:
        """As of each."""
        for proxy in self.to:
            proxy.release()

    def slow(self, bytes_a_second: int) -> None:
        """As of each."""
        for proxy in self.to:
            proxy.slow(bytes_a_second)

    async def close(self) -> None:
        """Leaves no task."""
        for proxy in self.to:
            await proxy.close()


class Cluster:
    """All servers."""

    def __init__(self, folder: Path) -> None:
        self._pairs: dict[tuple[int, int], Proxy] = {}
        self.nodes: list[Node] = []
        self._folder = folder

    @property
    def ports(self) -> list[int]:
        """Where clients connect."""
        return [node.port for node in self.nodes]

    def url(self) -> str:
        """All of them."""
        return ",".join(node.url() for node in self.nodes)

    async def start(self) -> None:
        """Returns when clients can connect; the cluster finds itself meanwhile."""
        self.nodes += [Node(self._folder / f"nats-{number}", f"n{number}") for number in range(NODES)]
        for pair in permutations(range(NODES), 2):
            proxy = self._pairs[pair] = Proxy(self.nodes[pair[1]].route_port)
            await proxy.start()
            self.nodes[pair[0]].routes.append(proxy)
        await asyncio.gather(*(node.start() for node in self.nodes))

    async def kill(self, number: int) -> None:
        """kill -9."""
        await self.nodes[number].stop(signal.SIGKILL)

    async def revive(self, number: int) -> None:
        """Where it was, with what it had."""
        await self.nodes[number].start()

    def isolate(self, number: int, doors: list[Doors], *, silently: bool) -> None:
        """From now on no byte passes between it and others or any service. `silently`: nobody is told, either."""
        for proxy in self._around(number, doors):
            proxy.hold()
            if not silently:
                proxy.cut()

    def rejoin(self, number: int, doors: list[Doors]) -> None:
        """What was under way is lost; all may connect again."""
        for proxy in self._around(number, doors):
            proxy.cut()
            proxy.release()

    async def close(self) -> None:
        """Leave nothing."""
        for proxy in self._pairs.values():
            await proxy.close()
        await asyncio.gather(*(node.stop(signal.SIGKILL) for node in self.nodes))

    def _around(self, number: int, doors: list[Doors]) -> list[Proxy]:
        return [proxy for pair, proxy in self._pairs.items() if number in pair] + [door.to[number] for door in doors]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
