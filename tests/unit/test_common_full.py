"""JetStream's word that there is no room is a reason to wait, and not a refusal of the message."""

from __future__ import annotations

import asyncio
import json

import pytest

from pitstop_common.acks import Ack, Refused
from pitstop_common.bus import _take_ack
from pitstop_common.errors import PitstopError, Unavailable, WrongLastSequence
from pitstop_common.wire import Letter


@pytest.mark.parametrize(
    ("number", "code", "what"),
    [
        (10023, 503, Unavailable), (10028, 500, Unavailable), (10047, 500, Unavailable), (10077, 503, Unavailable),
        (10071, 400, WrongLastSequence), (10060, 400, Refused),
    ],
    ids=["resources", "memory", "storage", "stream", "head", "other"],
)  # fmt: skip
async def test_what_an_error_of_the_server_means(number: int, code: int, what: type[PitstopError]) -> None:
    future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
    error = {"err_code": number, "code": code, "description": "why"}
    _take_ack(future, Letter("inbox", "", json.dumps({"error": error}).encode(), None))
    with pytest.raises(what, match="why"):
        await future
