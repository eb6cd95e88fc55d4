"""What the server's answers to a publish mean: which are for good, and which ask for another try."""

from __future__ import annotations

import asyncio
import json

import pytest

from pitstop_common.acks import Ack, Refused
from pitstop_common.bus import _take_ack
from pitstop_common.errors import PitstopError, Unavailable, WrongLastSequence
from pitstop_common.wire import Letter


def answer(body: object) -> Letter:
    return Letter("inbox", "", json.dumps(body).encode(), None)


@pytest.mark.parametrize(
    ("code", "number", "meaning"),
    [
        (503, 10008, Unavailable),  # no quorum now
        (409, 10158, Unavailable),  # the first try of the same id is on its way through the cluster
        (500, 10009, Unavailable),  # the leader has changed
        (400, 10071, WrongLastSequence),
        (400, 10054, Refused),  # larger than the stream takes
    ],
)
async def test_what_a_refusal_means(code: int, number: int, meaning: type[PitstopError]) -> None:
    future: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
    _take_ack(future, answer({"error": {"code": code, "err_code": number, "description": "why"}}))
    with pytest.raises(meaning):
        await future
