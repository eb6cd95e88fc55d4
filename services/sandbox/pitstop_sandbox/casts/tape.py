"""The recording of one terminal: what it shows, masked, cut into pieces. Time is an argument; no I/O.

Values are found across any borders of what is written: an end that may be the beginning of a value waits for its rest.
What is typed is not recorded, only what the terminal shows of it.
"""

from __future__ import annotations

import codecs
from bisect import bisect_right
from collections import deque
from itertools import accumulate
from typing import Final, NamedTuple

import msgspec

from pitstop_common.limits import CAST_CHUNK, MAX_CAST, MAX_CAST_WAITING
from pitstop_common.messages import CastChunk, CastEvent
from pitstop_sandbox.steps.masks import Masks

_CHARACTER: Final = 4
"""Bytes of the longest one in UTF-8."""


class _Written(NamedTuple):
    at: float
    data: bytes
    size: str = ""
    """Instead of output: the terminal's new size."""


class Tape:
    """Takes what a terminal shows, gives pieces to be stored. `last`: the piece before the next; its index is -1 at the
    beginning."""

    def __init__(self, last: CastChunk) -> None:
        self.last = last
        self.ended = False
        self.reached = last.reached
        """How far the scrollback has been taken in."""
        self._waiting: deque[_Written] = deque()
        self._held = 0
        self._lost = 0
        self._room = MAX_CAST - last.size

    def output(self, data: bytes, now: float) -> None:
        """It shows this."""
        if self.last.cut or self.ended:
            return
        self._waiting.append(_Written(now, data))
        self._held += len(data)
        while self._held - len(self._waiting[0].data) > MAX_CAST_WAITING:
            gone = len(self._waiting.popleft().data)
            self._held -= gone
            self._lost += gone

    def resized(self, columns: int, rows: int, now: float) -> None:
        """Its window has another size."""
        if not self.last.cut:
            self._waiting.append(_Written(now, b"", f"{columns}x{rows}"))

    def missed(self, size: int) -> None:
        """So many bytes were shown that nobody has."""
        self._lost += size

    @property
    def due(self) -> bool:
        """Is there anything to store."""
        return bool(self._waiting or self.last.index < 0 or (self.ended and not self.last.ended))

    @property
    def much(self) -> bool:
        """A piece is full."""
        return self._held >= CAST_CHUNK

    def take(self, masks: Masks, room: int) -> CastChunk | None:
        """The next piece, if there is one; `last` from now on. `room`: bytes left to all recordings of the job."""
        joined = self._front(CAST_CHUNK + masks.longest + _CHARACTER)
        spans = masks.spans(joined)
        safe = self._safe(joined, masks, spans)
        written, safe = self._written(safe)
        events = self._events(written, joined[:safe], masks, spans)
        if not events and self.last.index >= 0 and not (self.ended and not self._waiting):
            return None
        size = self.last.size + sum(len(event.data.encode()) for event in events)
        cut = self.last.cut or size > MAX_CAST or sum(len(event.data) for event in events) > room
        if cut and not self.last.cut:
            self._waiting.clear()
            self._held = 0
            at = events[0].at if events else self.last.seconds
            text = "\r\n[pitstop] the recording ends here: it has become too long\r\n"
            events, size = [CastEvent(at, "o", text)], self.last.size + len(text)
        self.last = msgspec.structs.replace(
            self.last, index=self.last.index + 1, events=tuple(events), size=size, cut=cut,
            seconds=events[-1].at if events else self.last.seconds, ended=self.ended and not self._waiting,
            reached=self.reached - self._held,
        )  # fmt: skip
        return self.last

    def _front(self, size: int) -> bytes:
        """At least so much of what waits, if there is so much."""
        found = bytearray()
        for one in self._waiting:
            if len(found) >= size:
                break
            found += one.data
        return bytes(found)

    def _safe(self, joined: bytes, masks: Masks, spans: list[tuple[int, int]]) -> int:
        """How much may be given out now: no value and no character is cut apart."""
        end = len(joined)
        if end == self._held and not self.ended:
            end -= max(masks.open_end(joined), _unfinished(joined))
        end = min(end, CAST_CHUNK)
        while end < len(joined) and end > 0 and joined[end] & 0xC0 == 0x80 and not self.ended:
            end -= 1
        for start, stop in spans:
            if start < end < stop:
                end = start or stop
        return end

    def _written(self, safe: int) -> tuple[list[_Written], int]:
        """What is given out: whole writes, and the first part of the one that does not fit."""
        taken: list[_Written] = []
        left = safe
        while self._waiting and (left > 0 or not self._waiting[0].data):
            one = self._waiting.popleft()
            if len(one.data) > left:
                self._waiting.appendleft(one._replace(data=one.data[left:]))
                one = one._replace(data=one.data[:left])
            left -= len(one.data)
            taken.append(one)
        self._held -= safe - left
        return taken, safe - left

    def _events(
        self, written: list[_Written], data: bytes, masks: Masks, spans: list[tuple[int, int]]
    ) -> list[CastEvent]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        starts = [start for start, _ in spans]
        found = []
        if self._lost:
            text = f"\r\n[pitstop] {self._lost} bytes are missing here\r\n"
            found.append(CastEvent(self._since(written[0].at) if written else self.last.seconds, "o", text))
            self._lost = 0
        before = 0
        for one, end in zip(written, accumulate(len(one.data) for one in written), strict=True):
            if one.size:
                found.append(CastEvent(self._since(one.at), "r", one.size))
                continue
            place = bisect_right(starts, end - 1) - 1
            border = max(end, spans[place][1]) if place >= 0 and spans[place][0] < end < spans[place][1] else end
            border = max(before, min(border, len(data)))
            text = decoder.decode(masks.apply(data[before:border]), final=one is written[-1])
            before = border
            if text:
                found.append(CastEvent(self._since(one.at), "o", text))
        return found

    def _since(self, at: float) -> float:
        return round(max(self.last.seconds, at - self.last.started), 6)


def _unfinished(data: bytes) -> int:
    """Bytes at the end that begin a character and are not all of it."""
    for back in range(1, min(_CHARACTER, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 2 if byte & 0xE0 == 0xC0 else 3 if byte & 0xF0 == 0xE0 else 4 if byte & 0xF8 == 0xF0 else 1
        return back if length > back else 0
    return 0
