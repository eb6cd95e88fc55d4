"""The short way of reading a connection says what the stock one says, wherever the bytes are cut."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from pitstop_common.wire import Letter, _Direct, quicken

WORD = st.text("abc.$_>*", min_size=1, max_size=8)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)
HEADERS = st.dictionaries(st.text("abcXYZ-", min_size=1, max_size=6), VALUE, max_size=3)
STATUS = st.sampled_from(["", " 100 Idle Heartbeat", " 404 No Messages", " 503", " 409 Consumer Deleted"])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["MSG", "HMSG", "PING", "PONG", "+OK"]))
    if kind in {"PING", "PONG", "+OK"}:
        return f"{kind}\r\n".encode()
    data, reply = draw(st.binary(max_size=20)), draw(st.just("") | WORD)
    place = f"{draw(WORD)} {draw(st.integers(1, 3))} {reply}".strip()
    if kind == "MSG":
        return f"MSG {place} {len(data)}\r\n".encode() + data + b"\r\n"
    status = draw(STATUS)
    named = draw(HEADERS) if status != " 503" else {}  # behind a status without words the stock one misreads them
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    head = f"NATS/1.0{status}\r\n{lines}\r\n".encode()
    return f"HMSG {place} {len(head)} {len(head) + len(data)}\r\n".encode() + head + data + b"\r\n"


async def heard(pieces: list[bytes], *, quick: bool) -> list[tuple[Any, ...]]:
    """Subscription 1 is heard directly where there is the short way, 2 as ever, 3 is not there."""
    nc = Client()
    found: list[tuple[Any, ...]] = []

    def take(msg: Letter) -> None:
        found.append((msg.subject, msg.reply, msg.data, msg.headers or None))

    async def pong() -> None:
        found.append(("pong",))

    nc._process_ping = nc._process_pong = pong  # type: ignore[method-assign]
    for sid in (1, 2):
        sub = nc._subs[sid] = Subscription(nc, sid, "x", pending_bytes_limit=0)
        queue: Any = _Direct(take) if quick and sid == 1 else Stock(take)
        sub._pending_queue = queue
    if quick:
        quicken(nc)
    for piece in pieces:
        await nc._ps.parse(piece)
    assert not nc._ps.buf
    return [*found, (nc.stats["in_msgs"], nc.stats["in_bytes"])]


class Stock:
    """A queue that is looked into at once."""

    def __init__(self, take: Any) -> None:
        self.put_nowait = take


@given(st.lists(frames(), max_size=8), st.data())
def test_the_same_is_heard(sent: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    stock = asyncio.run(heard(sent, quick=False))
    assert asyncio.run(heard(pieces, quick=True)) == stock
    assert asyncio.run(heard(sent, quick=True)) == stock
