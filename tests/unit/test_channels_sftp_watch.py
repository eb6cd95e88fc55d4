"""What an sftp client asks for is read from its bytes, however they come, and nothing of them is trusted."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pitstop_sandbox.channels.sftp_watch import KEPT, Operation, SftpWatch, read

NAMES = st.binary(max_size=40)


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def packet(kind: int, *fields: bytes) -> bytes:
    body = bytes([kind]) + struct.pack(">I", 7) + b"".join(fields)
    return struct.pack(">I", len(body)) + body


def text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def opened(name: bytes, flags: int) -> tuple[bytes, Operation]:
    words = {1: "read", 2: "write", 0x1A: "write", 3: "read and write", 0: "open"}[flags]
    return packet(3, string(name), struct.pack(">II", flags, 0)), Operation(words, (text(name),))


def renamed(old: bytes, new: bytes, extended: bool) -> tuple[bytes, Operation]:
    asked = packet(200, string(b"posix-rename@openssh.com"), string(old), string(new)) if extended else packet(
        18, string(old), string(new)
    )  # fmt: skip
    return asked, Operation("rename", (text(old), text(new)))


def of_one(kind: int, name: bytes) -> tuple[bytes, Operation]:
    words = {9: "change attributes of", 11: "list", 13: "remove", 14: "make folder", 15: "remove folder"}[kind]
    return packet(kind, string(name), struct.pack(">I", 0)), Operation(words, (text(name),))


def silent(kind: int, size: int) -> tuple[bytes, None]:
    """Reads, writes, stats: of what was opened."""
    return packet(kind, bytes(size)), None


REQUESTS = st.lists(
    st.builds(opened, NAMES, st.sampled_from([0, 1, 2, 3, 0x1A]))
    | st.builds(renamed, NAMES, NAMES, st.booleans())
    | st.builds(of_one, st.sampled_from([9, 11, 13, 14, 15]), NAMES)
    | st.builds(silent, st.sampled_from([1, 4, 5, 6, 7, 10, 17, 255]), st.sampled_from([0, 5, 3 * KEPT])),
    max_size=12,
)


def fed(data: bytes, cuts: list[int]) -> list[Operation]:
    told: list[Operation] = []
    watch = SftpWatch(told.append)
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(places):
        watch.feed(data[start:end])
        assert len(watch._kept) <= KEPT
    return told


@given(REQUESTS, st.lists(st.integers(0, 10**6), max_size=30))
def test_each_operation_is_told_once_in_order_however_the_bytes_come(
    requests: list[tuple[bytes, Operation | None]], cuts: list[int]
) -> None:
    data = b"".join(packet for packet, _ in requests)
    assert fed(data, cuts) == [operation for _, operation in requests if operation is not None]


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=20))
def test_any_bytes_are_passed_over_in_bounded_memory_and_the_same_way_however_they_come(
    data: bytes, cuts: list[int]
) -> None:
    assert fed(data, cuts) == fed(data, [])


@given(REQUESTS, st.data())
def test_a_spoiled_request_spoils_no_other(requests: list[tuple[bytes, Operation | None]], data: st.DataObject) -> None:
    spoiled = data.draw(st.binary(max_size=60))
    whole = struct.pack(">I", len(spoiled)) + spoiled + b"".join(packet for packet, _ in requests)
    found = read(spoiled)
    assert fed(whole, []) == [*([found] if found else []), *(one for _, one in requests if one is not None)]


def test_fields_longer_than_their_request_are_not_read() -> None:
    assert read(bytes([13]) + struct.pack(">II", 1, 2**32 - 1) + b"x") is None
    assert read(packet(3, string(b"x"))[4:]) is None
    assert read(b"") is None and read(b"\x0d") is None


def test_an_extension_nobody_knows_is_named_and_what_opens_nothing_is_not() -> None:
    assert read(packet(200, string(b"evil@x"), string(b"y"))[4:]) == Operation("ask for the extension", ("evil@x",))
    assert read(packet(200, string(b"statvfs@openssh.com"), string(b"/"))[4:]) is None
    assert read(packet(200, string(b"hardlink@openssh.com"), string(b"a"), string(b"b"))[4:]) == Operation(
        "link", ("a", "b")
    )
