"""The recordings of one job: pieces go to the store, one after the other, and survive a kill of this process.

Before a piece is sent it lies in a file of the host's own; whoever goes on sends that again under the same id. What a
kept shell showed since is in its scrollback, which counts its bytes; so nothing is lost and nothing comes twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from pitstop_common.limits import CAST_FLUSH_SECONDS, MAX_JOB_CASTS
from pitstop_common.messages import CastChunk
from pitstop_sandbox.casts.tape import Tape
from pitstop_sandbox.channels.shells import Shell
from pitstop_sandbox.steps.masks import Masks

log = logging.getLogger(__name__)

_LEAST: Final = 1024
"""Each counts as so many bytes at least."""
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(CastChunk).decode

Store = Callable[[CastChunk], Awaitable[None]]


class _News:
    """There is something to store; there is much of it."""

    def __init__(self) -> None:
        self.some, self.much = asyncio.Event(), asyncio.Event()

    def clear(self) -> None:
        self.some.clear()
        self.much.clear()


class Recording:
    """One terminal, as its channel sees it."""

    def __init__(self, tape: Tape, clock: Callable[[], float], news: _News) -> None:
        self.tape = tape
        self._clock, self._news = clock, news
        self._shell: Shell | None = None

    def output(self, data: bytes) -> None:
        """The terminal shows this; its scrollback, if it has one, has it already."""
        self.tape.output(data, self._clock())
        self._look()

    def resized(self, columns: int, rows: int) -> None:
        """Its window has another size."""
        self.tape.resized(columns, rows, self._clock())
        self._news.some.set()

    def follow(self, shell: Shell) -> None:
        """It is the terminal of a kept shell, which may have shown something since."""
        self._shell = shell
        with contextlib.suppress(OSError):
            shown, position = shell.shown_since(self.tape.reached)
            self.tape.missed(max(0, position - self.tape.reached - len(shown)))
            if shown:
                self.tape.output(shown, self._clock())
        self._look()

    def end(self) -> None:
        """It shows nothing more."""
        self.tape.ended = True
        self._news.some.set()

    def _look(self) -> None:
        if self._shell is not None:
            with contextlib.suppress(OSError):
                self.tape.reached = self._shell.position
        self._news.some.set()
        if self.tape.much:
            self._news.much.set()


class Recordings:
    """By the id of the process. `values` are what is to be hidden, as they are now; without a `store` nothing is
    recorded."""

    def __init__(self, folder: Path, store: Store | None, values: Callable[[], tuple[str, ...]],
                 clock: Callable[[], float]) -> None:  # fmt: skip
        self._folder, self._store, self._values, self._clock = folder, store, values, clock
        self._all: dict[str, Recording] = {}
        self._ended_size = 0
        self._unsure: set[str] = set()
        self._news = _News()
        self._turn = asyncio.Lock()
        self._known: tuple[str, ...] = ()
        self._masks = Masks()

    def of(self, process: str) -> Recording | None:
        """The one of a process that runs."""
        return self._all.get(process)

    def begin(self, process: str, head: CastChunk) -> Recording | None:
        """Record a terminal from now on. None: nothing is recorded here."""
        if self._store is None:
            return None
        made = self._all[process] = Recording(Tape(head), self._clock, self._news)
        self._write(self._path(process), head)  # from here on a kill of this process loses nothing that is kept
        self._news.some.set()
        return made

    def restore(self) -> None:
        """Go on with those of an earlier process: each waits for its shell."""
        for path in sorted(self._folder.glob("*.cast")):
            try:
                chunk = _decode(path.read_bytes())
            except (OSError, msgspec.MsgspecError) as error:
                log.error("the recording %s cannot go on: %s", path.name, error)
                continue
            self._all[path.stem] = Recording(Tape(chunk), self._clock, self._news)
            if chunk.index >= 0:
                self._unsure.add(path.stem)
        self._news.some.set()

    def end_others(self, living: Callable[[str], bool]) -> None:
        """Those whose terminal did not outlive the earlier process are over."""
        for process, recording in self._all.items():
            if not living(process):
                recording.end()

    async def keep(self) -> None:
        """Stores what comes, for as long as the job lives."""
        while True:
            await self._news.some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CAST_FLUSH_SECONDS):
                    await self._news.much.wait()
            self._news.clear()
            await self._flush()

    async def finish(self) -> None:
        """All terminals are gone: store the rest."""
        for recording in self._all.values():
            recording.end()
        await self._flush()

    def masks(self) -> Masks:
        """As they are now."""
        values = self._values()
        if values != self._known:
            self._known, self._masks = values, Masks(values)
        return self._masks

    async def _flush(self) -> None:
        async with self._turn:
            for process in list(self._all):
                await self._flush_one(process, self._all[process].tape)

    async def _flush_one(self, process: str, tape: Tape) -> None:
        assert self._store is not None
        path = self._path(process)
        if process in self._unsure:  # the earlier process may have died before it was stored
            await self._store(tape.last)
            self._unsure.discard(process)
        while tape.due and (chunk := tape.take(self.masks(), self._room())) is not None:
            self._write(path, chunk)
            await self._store(chunk)
        if tape.last.ended:
            del self._all[process]
            self._ended_size += max(_LEAST, tape.last.size)
            path.unlink(missing_ok=True)

    def _path(self, process: str) -> Path:
        return self._folder / f"{process}.cast"

    def _room(self) -> int:
        living = sum(max(_LEAST, recording.tape.last.size) for recording in self._all.values())
        return MAX_JOB_CASTS - self._ended_size - living

    def _write(self, path: Path, chunk: CastChunk) -> None:
        """A full disk is no reason to end a job: a kill may lose a second of the recording then."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            draft = path.with_suffix(".new")
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _write_all(fd, _encode(chunk))
            finally:
                os.close(fd)
            draft.replace(path)
        except OSError as error:
            log.warning("%s: %s", path, error)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
