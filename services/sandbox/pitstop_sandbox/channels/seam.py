"""asyncssh's connection layer without its transport: with `quick`, what of this service uses private names.

Pinned to asyncssh 2.24.1; `tests/unit/test_channels_seam.py` fails when one of the names changes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncssh
from asyncssh.connection import SSHServerConnection, SSHServerConnectionOptions
from asyncssh.packet import PacketDecodeError, SSHPacket

from pitstop_sandbox.backends.port import Accepted, Tcp, Unix
from pitstop_sandbox.channels.forwards import Forwards, Remote
from pitstop_sandbox.channels.gate import CHANNEL_DATA, MAX_CHANNELS, Answer, Broken, Gate, window
from pitstop_sandbox.channels.quick import QuickChannel, number_of
from pitstop_sandbox.channels.stream import Stream

MAX_PACKET: Final = 64 * 1024

_DATA: Final = bytes((CHANNEL_DATA,))
_FIRST_OF_CONNECTION: Final = 80
_FIRST_OF_CHANNEL: Final = 93
_SHORTAGE: Final = 4


class Connection(SSHServerConnection):
    """Channels of one user, over `send`, which takes whole messages. `ended` is called once, with the reason, when it
    breaks from inside."""

    def __init__(
        self,
        new_session: Callable[[], asyncssh.SSHServerSession[bytes]],
        forwards: Forwards,
        send: Callable[..., None],
        ended: Callable[[str], None],
    ) -> None:
        super().__init__(asyncio.get_running_loop(), _options())
        self._send_message = send
        self._ended = ended
        self._forwards = forwards
        self._gate = Gate(forwards.rules)
        self._transport = _NoTransport()  # type: ignore[assignment]
        self._auth_complete = self._kex_complete = True
        self._owner = _Owner(self, new_session, forwards)

    def session_channel(self) -> QuickChannel:
        """One for a shell, a command or a subsystem."""
        return QuickChannel(self, self._loop, self._send_message, window=self.window, max_pktsize=MAX_PACKET)

    @property
    def channels(self) -> int:
        """How many are open."""
        return len(self._channels)

    @property
    def window(self) -> int:
        """Of the next channel."""
        return window(self.channels)

    def feed(self, message: bytes) -> None:
        """Take one message of type 80..127 from the client. Never raises: what is wrong with it ends this
        connection."""
        if not self._transport:
            return
        try:
            if message[:1] == _DATA:
                channel = self._channels.get(number_of(message))
                if isinstance(channel, QuickChannel) and channel.take(message):
                    return
            verdict = self._gate.judge(message, self.channels, self._loop.time())
            while self._gate.refused:
                self._forwards.note(self._gate.refused.pop())
            if isinstance(verdict, Answer):
                self._send_message(verdict.message)
                return
            self._dispatch(SSHPacket(verdict.instead or message))
        except (Broken, asyncssh.DisconnectError, PacketDecodeError) as error:
            self.end(str(error))
        except Exception:
            logging.getLogger(__name__).exception("ssh connection broke")
            self.end("internal error")

    def lost(self) -> None:
        """The client is gone: every channel ends now."""
        self.end("")

    def end(self, reason: str) -> None:
        """End every channel; tell `ended` when there is a reason. Only the first call counts."""
        ended, self._ended = self._ended, _nobody
        if self._transport:
            self._transport = None
            self._cleanup(None)
        self._forwards.close()  # also when asyncssh has ended the rest by itself
        if reason:
            ended(reason)

    def send_packet(self, pkttype: int, *args: bytes, handler: object = None) -> None:
        """asyncssh sends: messages of this layer go to the client, a disconnect ends the connection."""
        if pkttype >= _FIRST_OF_CONNECTION:
            self._send_message(bytes((pkttype,)) + b"".join(args))

    def internal_error(self, exc_info: Any = None, error_logger: object = None) -> None:
        """A task of asyncssh broke: it came too late, or a message was wrong, or nobody has foreseen it."""
        if not self._transport:
            return
        error = exc_info[1] if exc_info else sys.exception()
        if isinstance(error, asyncssh.DisconnectError | PacketDecodeError):
            self.end(str(error))
        else:
            logging.getLogger(__name__).error("ssh connection broke", exc_info=error)
            self.end("internal error")

    async def create_agent_listener(self) -> bool:
        """asyncssh's would be a socket of this host; this one is inside the sandbox."""
        return await self._forwards.listen_for_agent(self._to_agent)

    async def attach_x11_listener(self, *_args: Any) -> None:
        """Refused: it would be a listener of this host."""

    async def _to_agent(self, stream: Callable[[], Stream], _came: Accepted) -> None:
        self._bound()
        await self.create_agent_channel(self.window, MAX_PACKET).open(stream)

    def listen_tcp(self, host: str, port: int) -> Awaitable[Remote | None]:
        """`-R` of a port."""

        async def to_client(stream: Callable[[], Stream], came: Accepted) -> None:
            self._bound()
            taken = port or (remote.get_port() if remote else 0)
            await self.create_connection(
                stream, host, taken, came.host, came.port, window=self.window, max_pktsize=MAX_PACKET
            )

        remote: Remote | None = None

        async def listen() -> Remote | None:
            nonlocal remote
            remote = await self._forwards.listen(Tcp(host, port), to_client)
            return remote

        return listen()

    def listen_unix(self, path: str) -> Awaitable[Remote | None]:
        """`-R` of a unix socket."""

        async def to_client(stream: Callable[[], Stream], _came: Accepted) -> None:
            self._bound()
            await self.create_unix_connection(stream, path, window=self.window, max_pktsize=MAX_PACKET)

        return self._forwards.listen(Unix(path), to_client)

    def _bound(self) -> None:
        if not self._transport or self.channels >= MAX_CHANNELS:
            raise asyncssh.ChannelOpenError(_SHORTAGE, "too many channels")

    def _process_cancel_tcpip_forward_global_request(self, packet: SSHPacket) -> None:
        self._cancel(super()._process_cancel_tcpip_forward_global_request, packet)

    def _process_cancel_streamlocal_forward_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._cancel(super()._process_cancel_streamlocal_forward_at_openssh_dot_com_global_request, packet)

    def _cancel(self, cancel: Callable[[SSHPacket], None], packet: SSHPacket) -> None:
        """A listener that there is not is no reason to end the connection, as it is for asyncssh."""
        try:
            cancel(packet)
        except asyncssh.ProtocolError:
            self._report_global_response(False)

    def _dispatch(self, packet: SSHPacket) -> None:
        kind = packet.get_byte()
        if kind < _FIRST_OF_CHANNEL:
            known: object = self.process_packet(kind, 0, packet)
        else:
            channel = self._channels.get(packet.get_uint32())
            if channel is None:
                raise Broken("a message for a channel that is not open")
            known = channel.process_packet(kind, 0, packet)
        if not known:
            raise Broken(f"unknown message {kind}")


def _nobody(_reason: str) -> None:
    pass


class _Owner(asyncssh.SSHServer):
    """Answers what a connection asks for. Never True: asyncssh would open it on this host."""

    def __init__(
        self,
        connection: Connection,
        new_session: Callable[[], asyncssh.SSHServerSession[bytes]],
        forwards: Forwards,
    ) -> None:
        self._connection = connection
        self._new_session = new_session
        self._forwards = forwards

    def session_requested(self) -> Any:
        return self._connection.session_channel(), self._new_session()

    def connection_requested(self, dest_host: str, dest_port: int, *_origin: object) -> Any:
        channel = self._connection.create_tcp_channel(window=self._connection.window, max_pktsize=MAX_PACKET)
        return channel, self._forwards.dial(Tcp(dest_host, dest_port))

    def unix_connection_requested(self, dest_path: str) -> Any:
        channel = self._connection.create_unix_channel(window=self._connection.window, max_pktsize=MAX_PACKET)
        return channel, self._forwards.dial(Unix(dest_path))

    def server_requested(self, listen_host: str, listen_port: int) -> Any:
        return self._connection.listen_tcp(listen_host, listen_port)

    def unix_server_requested(self, listen_path: str) -> Any:
        return self._connection.listen_unix(listen_path)

    def tun_requested(self, *_args: Any) -> bool:
        return False

    def tap_requested(self, *_args: Any) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.end(str(exc) if exc else "closed")


class _NoTransport:
    """Stands where asyncssh keeps its socket; there is none."""

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def close(self) -> None:
        pass


_cached: list[SSHServerConnectionOptions] = []


def _options() -> SSHServerConnectionOptions:
    if not _cached:
        # asyncssh insists on a host key, though there is no key exchange here: this one is used for nothing.
        _cached.append(
            SSHServerConnectionOptions(
                server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")], login_timeout=0,
                line_editor=False, encoding=None, agent_forwarding=False, x11_forwarding=False, gss_host=None,
            )
        )  # fmt: skip
    return _cached[0]
