"""SSH transport and user authentication by asyncssh, and nothing above. This file and `passing` use private names:
pinned to asyncssh 2.24.1; `tests/unit/test_relay_transport.py` fails when one of the names changes.

The seam has two methods. `process_packet` gives every message of type 80..127 to the guest, unread; `down` sends one
such message to the client.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

import asyncssh
from asyncssh.connection import SSHServerConnection, SSHServerConnectionOptions
from asyncssh.packet import SSHPacket, String, UInt32

from pitstop_common.limits import PAUSE_ABOVE, RESUME_BELOW
from pitstop_common.userauth import ACCEPTED
from pitstop_relay.everywhere import Everywhere
from pitstop_relay.host_keys import HostKeys
from pitstop_relay.passing import FIRST, LAST, PassingConnection
from pitstop_relay.probing import probe
from pitstop_relay.proofs import acceptable
from pitstop_relay.proving import ANSWERS, GLOBAL_REQUEST, PROVE, Proving

POST_QUANTUM: Final = ("mlkem768x25519-sha256",)
KEX: Final = (*POST_QUANTUM, "curve25519-sha256", "curve25519-sha256@libssh.org")
CIPHERS: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr")
MACS: Final = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
PLAIN_MAC: Final = "hmac-sha2-256"
PLAIN_CLIENTS: Final = (b"dropbear", b"libssh2")
"""They know no MAC of the better kind (encrypt-then-MAC) and no AES-GCM: only they are offered PLAIN_MAC, too."""

_OPENSSH: Final = re.compile(rb"OpenSSH_(\d+)\.")
_KNOWS_POST_QUANTUM: Final = 10
"""From this version on OpenSSH takes it before all others, so it is offered nothing weaker."""
_GUESS: Final = b"kexguess2@matt.ucc.asn.au"
_DISCONNECT: Final = 1
_IGNORE: Final = 2
_BY_APPLICATION: Final = 11
_NO_MORE_METHODS: Final = 14
_FLUSH_WITHIN: Final = 5.0
_REQUESTS_PER_TRY: Final = 3
MAX_EARLY_PACKET: Final = 35_000
"""Of who is not let in, bytes: what RFC 4253 section 6.1 says that everybody must take."""
_PER_MESSAGE: Final = 200
"""What holding back one message costs beside its bytes."""


class Guest(Protocol):
    """Whom the transport serves: one connection's logic."""

    async def signed(self, message: bytes, signature: bytes, key: bytes) -> bool:
        """A login request and its signature, not verified yet. True lets it in."""

    async def password(self, job: str, password: str) -> bool:
        """A user name and its password, as they came. True lets it in."""

    @property
    def takes_passwords(self) -> bool:
        """Is it worth to ask for one."""

    def entered(self) -> None:
        """Success was sent to the client."""

    def up(self, message: bytes) -> None:
        """One message of type 80..127."""

    def full(self) -> None:
        """More than PAUSE_ABOVE waits for the client to read."""

    def free(self) -> None:
        """Less than RESUME_BELOW waits."""

    def gone(self, error: Exception | None) -> None:
        """The connection is over."""


class Transport(PassingConnection):
    """One client. `guest` makes the logic for it."""

    def __init__(
        self, options: SSHServerConnectionOptions, guest: Callable[[Transport], Guest], max_tries: int
    ) -> None:
        super().__init__(asyncio.get_running_loop(), options)
        self._max_later, self._max_recv_pktlen = self._max_recv_pktlen, MAX_EARLY_PACKET
        self._tries = max_tries
        self._requests = max_tries * _REQUESTS_PER_TRY
        self._deferred = 0
        self._full = False
        self.client = ""
        self.new_session: Callable[[], asyncssh.SSHServerSession[str]] | None = None
        self._proving = Proving(self._prove)
        self.guest = guest(self)
        self._channels = Everywhere(self.passed_up)  # type: ignore[assignment]

    # -- the seam --------------------------------------------------------------------------------------------------

    def process_packet(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """asyncssh has a message for the connection, or for any channel."""
        if FIRST <= pkttype <= LAST and self.passes:
            self.passed_up(packet.get_full_payload())
            return True
        return super().process_packet(pkttype, pktid, packet)

    def passed_up(self, message: bytes) -> None:
        """One message of type 80..127."""
        if message[0] == GLOBAL_REQUEST:
            self._proving.asked(message)
        self.guest.up(message)

    def down(self, message: bytes) -> None:
        """Send one message of type 80..127 to the client."""
        self.pass_down(self._proving.answered(message) if message[0] in ANSWERS else message)
        if self._deferred_packets:
            self._deferred += len(message) + _PER_MESSAGE
        elif self._deferred:
            self._deferred = 0

    def send_packet(self, pkttype: int, *args: bytes, handler: Any = None) -> None:
        """asyncssh puts an IGNORE before each packet, against an attack on CBC, which is not offered here."""
        if pkttype != _IGNORE:
            super().send_packet(pkttype, *args, handler=handler)

    def log_sent_packet(self, *_args: Any, **_more: Any) -> None:
        """asyncssh would put words together for every packet, also when nobody reads them."""

    def log_received_packet(self, *_args: Any, **_more: Any) -> None:
        """As above."""

    def serve(self, new_session: Callable[[], asyncssh.SSHServerSession[str]]) -> None:
        """Pass nothing on: asyncssh serves the channels of this client, whose sessions `new_session` makes. Before
        the login is over."""
        self.passes = False
        self.new_session = new_session
        self._channels = {}

    def _prove(self, keys: list[bytes]) -> bytes:
        known = self._all_server_host_keys
        if len(keys) > len(known) or not all(key in known for key in keys):
            return b""
        head = String(PROVE) + String(self._session_id)
        return b"".join(String(known[key].sign(head + String(key))) for key in keys)

    def _process_hostkeys_prove_00_at_openssh_dot_com_global_request(self, packet: SSHPacket) -> None:
        self._report_global_response(self._proving.proof(packet) or False)

    # -- what the guest needs --------------------------------------------------------------------------------------

    @property
    def session_id(self) -> bytes:
        """The exchange hash of the first key exchange."""
        return self._session_id

    @property
    def version(self) -> str:
        """What the client calls itself."""
        return str(self.get_extra_info("client_version", ""))[:100]

    @property
    def crowded(self) -> bool:
        """May there be much that waits?"""
        return self._full or self._deferred > 0

    @property
    def waiting(self) -> int:
        """Bytes that the client has not taken: written, or held back by a key exchange."""
        return self._deferred + (self._transport.get_write_buffer_size() if self._transport else 0)

    def hold(self) -> None:
        """Read nothing from the client for now."""
        if self._transport and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        """Read again."""
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    def leave(self, text: str, code: int = _BY_APPLICATION) -> None:
        """Disconnect with words that the client shows, after what was sent before."""
        if self._transport and not self._transport.is_closing():
            self.send_packet(_DISCONNECT, UInt32(code), String(text), String("en"))
            self._transport.close()
            asyncio.get_running_loop().call_later(_FLUSH_WITHIN, self._transport.abort)

    def _send_kexinit(self) -> None:
        """The client has said what it is."""
        if any(name in self._client_version for name in PLAIN_CLIENTS):
            self._mac_algs = [name.encode() for name in (*MACS, PLAIN_MAC)]
        found = _OPENSSH.search(self._client_version)
        if found and int(found[1]) >= _KNOWS_POST_QUANTUM:
            self._kex_algs = [name.encode() for name in POST_QUANTUM]
        super()._send_kexinit()

    def _get_extra_kex_algs(self) -> list[bytes]:
        """dropbear sends its guess of the key exchange along, and asyncssh takes it as this name says."""
        return [*super()._get_extra_kex_algs(), *([_GUESS] if b"dropbear" in self._client_version else [])]

    # -- authentication --------------------------------------------------------------------------------------------

    async def validate_public_key(self, username: str, key_data: bytes, msg: bytes, signature: bytes) -> bool:
        """An offer (no `msg`) is always welcome: saying no to it would tell who has an account, or which job is."""
        self._requests -= 1
        if self._requests < 0:
            return False
        return await self.guest.signed(msg, signature, key_data) if msg else acceptable(key_data)

    def send_userauth_failure(self, partial_success: bool) -> None:
        """Counts, and ends it after too many."""
        self._tries -= 1
        if self._tries < 0 or self._requests < 0:
            self.leave("pitstop: too many keys were tried; choose one: ssh -i FILE -o IdentitiesOnly=yes",
                       _NO_MORE_METHODS)  # fmt: skip
        else:
            super().send_userauth_failure(partial_success)

    async def validate_password(self, username: str, password: str) -> bool:
        """What should be an access token."""
        self._requests -= 1
        return self._requests >= 0 and await self.guest.password(username, password)

    async def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        """There is none to be changed."""
        return False

    def public_key_auth_supported(self) -> bool:
        """Always."""
        return True

    def password_auth_supported(self) -> bool:
        """For access tokens."""
        return self.guest.takes_passwords

    async def reload_config(self) -> None:
        """There is no file of settings to match."""

    # -- asyncio ---------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(PAUSE_ABOVE, RESUME_BELOW)
        peer = stream.get_extra_info("peername")
        self.client = f"{peer[0]}:{peer[1]}" if peer else ""
        super().connection_made(transport)
        probe(transport.get_extra_info("socket"))

    def pause_writing(self) -> None:
        """The client reads slowly."""
        self._full = True
        self.guest.full()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        self.guest.free()


class _Owner(asyncssh.SSHServer):
    """asyncssh's callbacks, passed on."""

    def connection_made(self, conn: SSHServerConnection) -> None:
        assert isinstance(conn, Transport)
        self._conn = conn

    def auth_completed(self) -> None:
        self._conn._max_recv_pktlen = self._conn._max_later
        self._conn.guest.entered()

    def session_requested(self) -> asyncssh.SSHServerSession[str] | bool:
        return self._conn.new_session() if self._conn.new_session else False

    def connection_lost(self, exc: Exception | None) -> None:
        self._conn.guest.gone(exc)


def options(keys: HostKeys, login_grace: float) -> SSHServerConnectionOptions:
    """How every client is served. Strict key exchange is always on in asyncssh; RSA host keys never are here."""
    certificates = [keys.certificate] if keys.certificate is not None else []
    made = SSHServerConnectionOptions(
        server_factory=_Owner, server_host_keys=[keys.current, *keys.others], server_host_certs=certificates,
        send_server_host_keys=True, server_version="Pitstop", login_timeout=login_grace,
        kex_algs=KEX, encryption_algs=CIPHERS, mac_algs=MACS, compression_algs=["none"], signature_algs=ACCEPTED,
        public_key_auth=True, password_auth=True, kbdint_auth=False, host_based_auth=False, gss_host=None,
        gss_kex=False, gss_auth=False, agent_forwarding=False, x11_forwarding=False, keepalive_interval=0,
    )  # fmt: skip
    for certificate in certificates:  # keys are announced, certificates are not
        del made.all_server_host_keys[certificate.public_data]
    return made
