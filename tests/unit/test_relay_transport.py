"""The relay uses private names of asyncssh: this fails when a new version changes one of them."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from pathlib import Path

import asyncssh
import pytest
from asyncssh import constants
from asyncssh.connection import SSHConnection, SSHServerConnection
from asyncssh.encryption import GCMEncryption
from asyncssh.packet import SSHPacket

from pitstop_common.errors import ConfigError
from pitstop_common.userauth import ACCEPTED
from pitstop_relay import host_keys, identity, transport
from pitstop_relay.host_keys import HostKeys
from pitstop_relay.proofs import acceptable
from pitstop_relay.transport import Transport, options


def test_the_version_is_the_one_that_was_read() -> None:
    assert version("asyncssh") == "2.24.1"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("process_packet", ["self", "pkttype", "pktid", "packet"]),
        ("send_packet", ["self", "pkttype", "args", "handler"]),
        ("validate_public_key", ["self", "username", "key_data", "msg", "signature"]),
        ("send_userauth_failure", ["self", "partial_success"]),
        ("public_key_auth_supported", ["self"]),
        ("validate_password", ["self", "username", "password"]),
        ("change_password", ["self", "username", "old_password", "new_password"]),
        ("password_auth_supported", ["self"]),
        ("reload_config", ["self"]),
        ("connection_made", ["self", "transport"]),
        ("pause_writing", ["self"]),
        ("resume_writing", ["self"]),
        ("_send", ["self", "data"]),
    ],
)
def test_what_is_overridden_is_called_so(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(SSHServerConnection, name)).parameters) == parameters
    assert list(inspect.signature(getattr(Transport, name)).parameters) == parameters


def test_the_seam_is_where_asyncssh_asks_for_a_channel() -> None:
    source = inspect.getsource(SSHConnection._recv_packet)
    assert "handler = self._channels[recv_chan]" in source
    assert "handler.process_packet(pkttype, seq, packet)" in source
    assert "pkttype > MSG_USERAUTH_LAST and not self._auth_complete" in source
    numbers = (constants.MSG_USERAUTH_LAST, constants.MSG_CHANNEL_FIRST, constants.MSG_CHANNEL_LAST)
    assert numbers == (79, 93, 127)
    assert "list(self._channels.values())" in inspect.getsource(SSHConnection._cleanup)


def test_the_names_that_are_read() -> None:
    made = inspect.getsource(SSHConnection.__init__)
    for name in ("_channels", "_transport", "_session_id", "_deferred_packets"):
        assert f"self.{name}" in made


def test_the_names_of_the_short_way() -> None:
    made = inspect.getsource(SSHConnection.__init__)
    for name in (
        "_inpbuf", "_auth_complete", "_auth_final", "_kex_complete", "_recv_encryption", "_send_encryption",
        "_max_recv_pktlen", "_recv_seq", "_send_seq", "_decompressor", "_compressor",
        "_send_enchdrlen", "_send_blocksize", "_rekey_bytes", "_rekey_bytes_sent", "_rekey_seconds", "_rekey_time",
    ):  # fmt: skip
        assert f"self.{name}" in made, name
    assert "self._recv_handler = self._recv_pkthdr" in inspect.getsource(SSHConnection._finish_recv_packet)
    assert "while self._inpbuf and self._recv_handler()" in inspect.getsource(SSHConnection._recv_data)
    cipher = GCMEncryption.new("aes128-gcm", bytes(16), bytes(12))._cipher
    assert (cipher._key, cipher._iv) == (bytes(16), bytes(12))
    cipher._update_iv()
    assert cipher._iv == bytes(11) + b"\1"


def test_what_is_negotiated() -> None:
    chosen = options(HostKeys(asyncssh.generate_private_key("ssh-ed25519")), 1)
    assert chosen.kex_algs == [name.encode() for name in transport.KEX]
    assert chosen.encryption_algs == [name.encode() for name in transport.CIPHERS]
    assert chosen.signature_algs == [name.encode() for name in ACCEPTED]
    assert chosen.compression_algs == [b"none"]
    assert b"ssh-rsa" not in chosen.signature_algs
    assert not any(b"chacha" in name for name in chosen.encryption_algs)


def test_any_key_of_a_known_kind_may_be_offered() -> None:
    assert acceptable(asyncssh.generate_private_key("ssh-ed25519").public_data)
    assert acceptable(asyncssh.generate_private_key("ssh-rsa", key_size=2048).public_data)
    assert not acceptable(b"")
    assert not acceptable(b"\0\0\0\x07ssh-dss")
    assert not acceptable(b"\0\0\0\x0bssh-ed25519" + bytes(5000))


def test_the_host_key_is_made_once_and_kept_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    first = host_keys.load(path).current
    assert path.stat().st_mode & 0o777 == 0o600
    assert host_keys.load(path).current.public_data == first.public_data
    assert list(path.parent.iterdir()) == [path]
    line = HostKeys(first).known_hosts("127.0.0.1", 2222)
    assert line == f"[127.0.0.1]:2222 ssh-ed25519 {line.split()[2]}"
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        host_keys.load(path)


def test_a_host_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_private_key())
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="it must be ssh-ed25519"):
        host_keys.load(path)
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot be used"):
        host_keys.load(path)


def test_tls_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TLS files"):
        identity.link_tls(tmp_path / "a", tmp_path / "b", tmp_path / "c")


@pytest.mark.parametrize(
    ("version", "exchanges", "macs", "guess"),
    [
        (b"SSH-2.0-OpenSSH_9.2p1", transport.KEX, [], False),
        (b"SSH-2.0-OpenSSH_9.9", transport.KEX, [], False),
        (b"SSH-2.0-OpenSSH_10.0p2 Debian-7", transport.POST_QUANTUM, [], False),
        (b"SSH-2.0-OpenSSH_for_Windows_9.5", transport.KEX, [], False),
        (b"SSH-2.0-PuTTY_Release_0.78", transport.KEX, [], False),
        (b"SSH-2.0-dropbear_2022.83", transport.KEX, [b"hmac-sha2-256"], True),
        (b"SSH-2.0-libssh2_1.10.0", transport.KEX, [b"hmac-sha2-256"], False),
    ],
)
async def test_only_who_knows_no_better_is_offered_less(
    version: bytes, exchanges: tuple[str, ...], macs: list[bytes], guess: bool
) -> None:
    assert "self._client_version = version" in inspect.getsource(SSHConnection._recv_version)
    sent: list[bytes] = []

    class Client(Transport):
        def send_packet(self, pkttype: int, *args: bytes, handler: object = None) -> None:
            sent.append(args[0])

    client = Client(options(HostKeys(asyncssh.generate_private_key("ssh-ed25519")), 1), lambda _transport: None, 1)  # type: ignore[arg-type, return-value]
    client._client_version = version
    for _ in range(2):  # and once more when keys change
        client._send_kexinit()
        lists = SSHPacket(sent.pop()[16:])
        kex, _host_keys, _up, _down, up_macs, down_macs = (lists.get_namelist() for _ in range(6))
        assert up_macs == down_macs == [*(name.encode() for name in transport.MACS), *macs]
        assert [name for name in kex if b"25519" in name] == [name.encode() for name in exchanges]
        assert (b"kexguess2@matt.ucc.asn.au" in kex) == guess
        assert b"kex-strict-s-v00@openssh.com" in kex
    client._transport = None
