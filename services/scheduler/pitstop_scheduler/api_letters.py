"""Dead letters: messages that could not be used."""

from __future__ import annotations

import base64
import uuid
from typing import Any

from nats.js.errors import APIError
from nats.micro.request import Request as MicroRequest

from pitstop_common import subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import NotFound
from pitstop_common.pull import read_all, rfc3339
from pitstop_common.streams import DLQ
from pitstop_scheduler.calls import Caller, Wrong, body_of


class Letters:
    """Verbs about the dead letters of the caller's org, and those without a usable one."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self, caller: Caller, _: MicroRequest) -> Any:
        found = []
        for org in (caller.org, subjects.NOBODY):
            found += [_letter(item.seq, item.subject, item.headers, item.stored, item.data)
                      for item in await read_all(self._bus, DLQ, f"dlq.*.{org}")]  # fmt: skip
        return {"letters": sorted(found, key=lambda letter: letter["seq"])}

    async def show(self, caller: Caller, asked: MicroRequest) -> Any:
        letter, data = await self._letter(caller, asked)
        return {**letter, "body": data.decode(errors="replace")}

    async def replay(self, caller: Caller, asked: MicroRequest) -> Any:
        letter, data = await self._letter(caller, asked)
        subject = letter["subject"]
        if not subject.startswith(subjects.RUN_REQUESTED):
            raise Wrong(f"only requests can be replayed; this was published on {subject}")
        ack = await self._bus.store(subject, data, {"Nats-Msg-Id": f"replay.{uuid.uuid4().hex}"})
        return {"ok": True, "seq": ack.seq}

    async def _letter(self, caller: Caller, asked: MicroRequest) -> tuple[dict[str, Any], bytes]:
        sequence = body_of(asked).get("seq")
        if not isinstance(sequence, int):
            raise Wrong("`seq` must be the number that `pitstop dlq ls` shows")
        try:
            reply = await self._bus.api(f"STREAM.MSG.GET.{DLQ}", {"seq": sequence})
        except APIError as error:
            raise NotFound(f"there is no dead letter {sequence}; `pitstop dlq ls` shows those there are") from error
        message = reply["message"]
        if message["subject"].split(".")[2] not in {caller.org, subjects.NOBODY}:
            raise NotFound(f"there is no dead letter {sequence} in org {caller.org}")
        data = base64.b64decode(message.get("data", ""))
        found = _parse_headers(base64.b64decode(message.get("hdrs", "")))
        return _letter(sequence, message["subject"], found, 0.0, data), data


def _letter(sequence: int, subject: str, about: dict[str, str], stored: float, data: bytes) -> dict[str, Any]:
    return {
        "seq": sequence, "stream": about.get("Pitstop-Stream", ""), "subject": about.get("Pitstop-Subject", subject),
        "reason": about.get("Pitstop-Reason", ""), "time": rfc3339(stored) if stored else "", "bytes": len(data),
        "org": subject.split(".")[2],
    }  # fmt: skip


def _parse_headers(raw: bytes) -> dict[str, str]:
    pairs = (line.partition(b":") for line in raw.split(b"\r\n")[1:] if line)
    return {name.decode(): value.strip().decode() for name, _, value in pairs}
