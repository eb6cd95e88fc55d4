"""Every cipher that is offered carries the same bytes, over changes of keys; AES-GCM by the relay's short way."""

from __future__ import annotations

import hashlib
import os
from collections import Counter

import asyncssh
import pytest
from tests.ssh_support import World, in_world

from pitstop_relay.passing import PassingConnection, _Cipher
from pitstop_relay.transport import CIPHERS


class Ways:
    """Counts the messages that go the short way, and the keys they go under."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.short: Counter[str] = Counter()
        self.keys = 0
        opened, sealed, made = _Cipher.opened, _Cipher.sealed, _Cipher.__init__

        def open_(cipher: _Cipher, packet: memoryview) -> bytes | None:
            message = opened(cipher, packet)
            self.short["up"] += message is not None
            return message

        def seal(cipher: _Cipher, packet: bytes) -> bytes:
            self.short["down"] += 1
            return sealed(cipher, packet)

        def make(cipher: _Cipher, encryption: object) -> None:
            self.keys += 1
            made(cipher, encryption)  # type: ignore[arg-type]

        patch.setattr(_Cipher, "opened", open_)
        patch.setattr(_Cipher, "sealed", seal)
        patch.setattr(_Cipher, "__init__", make)


@pytest.mark.parametrize("cipher", CIPHERS)
@in_world()
async def test_every_cipher_carries_the_same_bytes(ssh: World, monkeypatch: pytest.MonkeyPatch, cipher: str) -> None:
    ways = Ways(monkeypatch)
    await _echoed(ssh, "-c", cipher)
    if "gcm" in cipher:
        assert min(ways.short["up"], ways.short["down"]) > 10
        assert ways.keys == 2, "a cipher each way"
    else:
        assert not ways.short


@pytest.mark.parametrize("cipher", CIPHERS)
@in_world()
async def test_bytes_pass_under_changing_keys(ssh: World, monkeypatch: pytest.MonkeyPatch, cipher: str) -> None:
    # What comes down while keys are exchanged waits in asyncssh and goes its way: how much that is, chance decides.
    ways = Ways(monkeypatch)
    await _echoed(ssh, "-c", cipher, "-o", "RekeyLimit=512K")
    if "gcm" in cipher:
        assert ways.short["up"] > 10
        assert ways.keys >= 6, "a cipher each way for each exchange of keys"
    else:
        assert not ways.short


async def _echoed(ssh: World, *options: str) -> None:
    data = os.urandom(2 * 1024 * 1024)
    status, out, err = await ssh.ssh("cat", stdin=data, options=options)
    assert (status, err) == (0, b"")
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


@in_world()
async def test_a_packet_that_was_tampered_with_ends_the_connection(ssh: World, monkeypatch: pytest.MonkeyPatch) -> None:
    received = PassingConnection.data_received
    spoilt = 0

    def spoil(connection: PassingConnection, data: bytes, datatype: int | None = None) -> None:
        nonlocal spoilt
        if connection._auth_complete and not spoilt:
            spoilt += 1
            data = data[:-1] + bytes((data[-1] ^ 1,))
        received(connection, data, datatype)

    monkeypatch.setattr(PassingConnection, "data_received", spoil)
    status, out, _err = await ssh.ssh("echo never")
    assert (status, out, spoilt) == (255, b"", 1)
    assert await ssh.ssh("echo fine") == (0, b"fine\n", b"")


def test_a_packet_without_a_message_of_the_connection_layer_is_left_alone() -> None:
    cipher = asyncssh.encryption.GCMEncryption.new("aes128-gcm", bytes(16), bytes(12))
    other = _Cipher(asyncssh.encryption.GCMEncryption.new("aes128-gcm", bytes(16), bytes(12)))
    for plain, taken in (
        (b"\x0a\x5ehello" + bytes(10), b"\x5ehello"), (b"\x0a\x02hello" + bytes(10), None),
        (b"\x00\x5ehello" + bytes(10), None), (b"\x03\x5ehello" + bytes(3), None), (b"\xff\x5ehello" + bytes(10), None),
    ):  # fmt: skip
        length = len(plain).to_bytes(4, "big")
        sealed, tag = cipher.encrypt_packet(0, length, plain)
        before = other._gcm._iv
        assert other.opened(memoryview(sealed + tag)) == taken
        assert (other._gcm._iv != before) == (taken is not None)
        other._gcm._iv = cipher._cipher._iv
