"""What goes to a client goes in order, whichever way each packet takes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import asyncssh
import pytest
from asyncssh.encryption import GCMEncryption
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pitstop_relay.host_keys import HostKeys
from pitstop_relay.transport import Transport, options

KEY = bytes(16)
_OPTIONS = options(HostKeys(asyncssh.generate_private_key("ssh-ed25519")), 1)


class Wire:
    """Stands where the socket is."""

    def __init__(self) -> None:
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.sent += b"".join(pieces)

    def get_write_buffer_size(self) -> int:
        return 0


def logged_in(wire: Wire) -> Transport:
    """A client in the middle of its session."""
    client: Any = Transport(_OPTIONS, lambda _made: None, 1)  # type: ignore[arg-type, return-value]
    client._transport = wire
    client._send_encryption = GCMEncryption.new("aes128-gcm", KEY, bytes(12))
    client._send_enchdrlen, client._send_blocksize = 1, 16
    client._auth_complete = client._kex_complete = True
    client._rekey_bytes, client._rekey_seconds = 1 << 30, 0
    made: Transport = client
    return made


def read(sent: bytes) -> Iterator[bytes]:
    """The messages, as the client would open them: each with the next counter."""
    number = 0
    while sent:
        end = 4 + int.from_bytes(sent[:4], "big") + 16
        plain = AESGCM(KEY).decrypt(number.to_bytes(12, "big"), sent[4:end], sent[:4])
        yield plain[1 : -plain[0]]
        sent, number = sent[end:], number + 1


@given(
    st.lists(st.tuples(st.sampled_from(["down", "own", "wait"]), st.sampled_from([1, 100, 8200, 32_768])), max_size=12)
)
def test_packets_come_in_the_order_of_their_counters(deeds: list[tuple[str, int]]) -> None:
    async def main() -> None:
        wire = Wire()
        client = logged_in(wire)
        expected = []
        for deed, size in deeds:
            if deed == "down":
                expected.append(bytes([94]) + bytes(size))
                client.pass_down(expected[-1])
            elif deed == "own":
                expected.append(bytes([4]) + bytes(size))
                client.send_packet(4, bytes(size))
            else:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert list(read(wire.sent)) == expected
        client._transport = None

    asyncio.run(main())


@pytest.mark.parametrize(("size", "waits"), [(1, False), (30_000, True)])
async def test_only_bulk_waits_for_more_of_its_kind(size: int, waits: bool) -> None:
    wire = Wire()
    client = logged_in(wire)
    client.pass_down(bytes([94]) + bytes(size))
    assert (wire.sent == b"") is waits
    await asyncio.sleep(0)
    assert len(list(read(wire.sent))) == 1
    client._transport = None
