"""The relay: one port for people, one for sandbox hosts, and what joins them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from pathlib import Path
from typing import Final, cast

import asyncssh
import msgspec

from pitstop_common.config import address
from pitstop_common.errors import ConfigError
from pitstop_common.host_keys import KEY_FILE
from pitstop_common.lifecycle import Runtime
from pitstop_relay import host_keys, identity, transport
from pitstop_relay.config import RelayConfig
from pitstop_relay.control import Control
from pitstop_relay.denials import Denials
from pitstop_relay.doorkeeper import Doorkeeper
from pitstop_relay.guest import Guest
from pitstop_relay.link import Links
from pitstop_relay.login import Refusal
from pitstop_relay.metrics import RelayMetrics
from pitstop_relay.ports import AccessPort, Dialer, Events
from pitstop_relay.slowing import Slowing

log = logging.getLogger(__name__)

LEAVE_WITHIN: Final = 8.0
"""For clients to be told and gone at the end, seconds."""
BACKLOG: Final = 512

_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})
_FULL: Final = b"pitstop: too many connections; try again in a moment\r\n"
_LEAVING: Final = b"pitstop: this relay is being stopped; connect again\r\n"
_GOODBYE: Final = "pitstop: this relay is being stopped. Your shell goes on; connect again in a moment."


class SshAt(msgspec.Struct, frozen=True):
    """Where people connect. `known_hosts`: whole lines, the first of the key in use."""

    host: str
    port: int
    known_hosts: str


class Relay:
    """One worker."""

    def __init__(
        self,
        config: RelayConfig,
        metrics: RelayMetrics,
        access: AccessPort,
        dialer: Dialer,
        events: Events,
    ) -> None:
        logging.getLogger("asyncssh").setLevel(logging.ERROR)  # it would log what people type as commands
        self._config = config
        self.metrics = metrics
        self.access = access
        self.draining = False
        self.slowing = Slowing()
        self.links = Links(dialer, secrets.token_hex(8), metrics.links.set)
        self._events = events
        self._doorkeeper = Doorkeeper(
            config.ssh_max_connections, config.ssh_max_logins, config.ssh_max_logins_per_address
        )
        self._guests: dict[Guest, str] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self._server: asyncio.Server
        self._denials: Denials

    async def start(self) -> SshAt:
        """Serve from now on. Raises ConfigError."""
        config = self._config
        tls = identity.link_tls(config.tls_ca, config.tls_cert, config.tls_key)
        keys = host_keys.load(self._key_path(), config.ssh_host_cert)
        options = transport.options(keys, config.ssh_login_grace)
        ssh_host, ssh_port = address(config.ssh_listen)
        keys.check(_public(config.ssh_public, ssh_host, ssh_port)[0])
        self._denials = Denials(self._events)
        host, port = address(config.link_listen)
        try:
            bound = await self.links.listen(host, port, tls)
            self.links.address = _public(config.link_public, host, bound)
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Knock(self, options), ssh_host, ssh_port, backlog=BACKLOG,
                reuse_port=config.ssh_reuse_port or None,
            )  # fmt: skip
        except OSError as error:
            await self.links.close()
            await self._denials.close()
            where = f"PITSTOP_SSH_LISTEN={config.ssh_listen}, PITSTOP_LINK_LISTEN={config.link_listen}"
            raise ConfigError(f"cannot listen ({where}): {error.strerror or error}") from None
        at = _public(config.ssh_public, ssh_host, self._server.sockets[0].getsockname()[1])
        return SshAt(*at, keys.known_hosts(*at))

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Nobody new; those inside are told, and may go on for so long."""
        self.draining = True
        self._server.close()
        if seconds <= 0 or not self._guests:
            return
        log.info("waiting for %d clients to leave, %g s at most", len(self._guests), seconds)
        self.links.say_ending(seconds)
        waiting = [asyncio.ensure_future(event.wait()) for event in (self._empty, hurry)]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()

    async def stop(self) -> None:
        """Nobody new; everybody inside is told and disconnected; the links end."""
        self.draining = True
        self._server.close()
        for guest in tuple(self._guests):
            guest.dismiss("relay_stopped", _GOODBYE)
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                await self._empty.wait()
        except TimeoutError:
            log.warning("%d clients did not leave", len(self._guests))
        await self.links.close()
        await self._denials.close()

    def welcome(self, stream: asyncio.Transport, options: asyncssh.SSHServerConnectionOptions) -> None:
        """A TCP connection: serve it, or turn it away when there are too many."""
        peer = stream.get_extra_info("peername")
        client = str(peer[0]) if peer else ""
        limit = "draining" if self.draining else self._doorkeeper.knock(client)
        if limit:
            self.metrics.refused.labels(limit).inc()
            stream.write(_LEAVING if limit == "draining" else _FULL)
            stream.close()
            return
        served = transport.Transport(options, lambda made: self._guest(made, client), self._config.ssh_max_tries)
        stream.set_protocol(served)
        served.connection_made(stream)

    # -- what a guest calls ----------------------------------------------------------------------------------------

    def entered(self, guest: Guest) -> None:
        """A guest has logged in."""
        self._doorkeeper.entered(self._guests[guest])
        self.metrics.sessions.inc()

    def gone(self, guest: Guest, denials: list[Refusal]) -> None:
        """A guest has left."""
        self._doorkeeper.left(self._guests.pop(guest), inside=guest.inside)
        self.metrics.connections.set(self._doorkeeper.count)
        if guest.inside:
            self.metrics.sessions.dec()
        for refusal in denials:
            self._denials.add(refusal)
        if not self._guests:
            self._empty.set()

    def _guest(self, made: transport.Transport, client: str) -> Guest:
        guest = Guest(self, made)
        self._guests[guest] = client
        self._empty.clear()
        self.metrics.connections.set(self._doorkeeper.count)
        return guest

    def _key_path(self) -> Path:
        chosen = self._config.ssh_host_key
        return chosen if chosen != Path() else self._config.dir / KEY_FILE


class _Knock(asyncio.Protocol):
    """A connection before it is known whether there is room for it."""

    def __init__(self, relay: Relay, options: asyncssh.SSHServerConnectionOptions) -> None:
        self._relay = relay
        self._options = options

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._relay.welcome(cast(asyncio.Transport, transport), self._options)


async def serve(runtime: Runtime, config: RelayConfig) -> None:
    """The service's loop: until it is told to stop."""
    control = Control(runtime.bus)
    relay = Relay(config, RelayMetrics(runtime.metrics.registry), control, control, control)
    at = await relay.start()
    try:
        runtime.ready(ssh=msgspec.to_builtins(at), link=list(relay.links.address))
        await runtime.stopping.wait()
        await relay.drain(config.drain_timeout, runtime.hurrying)
    finally:
        await relay.stop()


def _public(chosen: str, host: str, port: int) -> tuple[str, int]:
    if chosen:
        return address(chosen)
    return (socket.gethostname() if host in _ANYWHERE else host), port
