"""Who runs an attempt: the create-only keys that keep anything from running twice, and the note of each on disk.

The folder of an attempt is made, with the note in it, before the claim is written. So after a kill at any point the
next process finds what the last one was about: it claims again with the same token, and the server's answer says
whether this attempt is its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from pitstop_common.acks import Refused
from pitstop_common.bucket import Bucket, Entry
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable, WrongLastSequence
from pitstop_common.limits import JOB
from pitstop_common.messages import Claim, Start, encode
from pitstop_sandbox.backends.trees import remove_tree

log = logging.getLogger(__name__)

_NOTE: Final = "claim.json"
KEY: Final = re.compile(JOB.pattern.removesuffix(r"\Z") + r"\.[1-9][0-9]{0,5}\Z")
_GONE: Final = re.compile(r"\.*" + KEY.pattern.removesuffix(r"\Z") + r"-[0-9a-f]{8}(\.\d+\.\d+)*\Z")
"""A folder put aside, or a part of one whose removal was cut short (`remove_tree` moves parts up beside it)."""
_GRANT: Final = re.compile(r"(?P<partition>[0-9]{1,4})\.(?P<record>[0-9]{1,18})\.(?P<n>[0-9]{1,9})\.start\Z")
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 1.0

T = TypeVar("T")


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder is for. `token` is that of its claim, `trace` the traceparent the start came with."""

    start: Start
    token: str
    trace: str = ""


class Claims:
    """The bucket of claims, as one host process sees it. Nothing here gives up: an answer is waited for."""

    def __init__(self, bus: Bus, host: str, incarnation: str) -> None:
        self._bucket = Bucket(bus, "claims")
        self._host = host
        self._incarnation = incarnation

    async def take(self, key: str, token: str, cause: str = "") -> Claim:
        """The claim on an attempt: this one, unless there is another. The caller compares the tokens. `cause`: the
        grant that the attempt follows from. A claim on an older grant is of a run that the log has forgotten, and whose
        request came again: it gives way."""
        wanted = Claim(host=self._host, incarnation=self._incarnation, token=token, cause=cause)

        async def write() -> Claim:
            try:
                await self._bucket.create(key, encode(wanted))
            except WrongLastSequence:
                entry = await self._bucket.get(key)
                stored = _decode(entry)
                if entry is None or stored is None:
                    raise Unavailable(f"the claim on {key} cannot be read yet") from None
                if not is_older(stored.cause, cause):
                    return stored
                try:
                    await self._bucket.swap(key, encode(wanted), entry.revision)
                except WrongLastSequence:
                    raise Unavailable(f"another claims {key} now") from None
            return wanted

        return await patiently(write)

    async def read(self, key: str) -> Claim | None:
        """The claim on an attempt, if there is one."""
        return _decode(await patiently(lambda: self._bucket.get(key)))


def is_older(one: str, other: str) -> bool:
    """Is the grant `<partition>.<record>.<n>.start` of one an earlier one of the same log than that of the other? False
    when either is unknown."""
    first, second = _GRANT.match(one), _GRANT.match(other)
    if first is None or second is None or first["partition"] != second["partition"]:
        return False
    return (int(first["record"]), int(first["n"])) < (int(second["record"]), int(second["n"]))


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, as soon as there is one."""
    delay = _FIRST_DELAY
    while True:
        try:
            return await ask()
        except (Unavailable, Refused) as error:
            log.debug("trying again: %s", error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY)


def _decode(entry: Entry | None) -> Claim | None:
    if entry is None or entry.value is None:
        return None
    try:
        return msgspec.json.decode(entry.value, type=Claim)
    except msgspec.MsgspecError:
        return Claim(host="", incarnation="")  # not ours, whatever it is


def key_of(job: str, attempt: int) -> str:
    """`<job>.<attempt>`: the key of a claim, the name of a folder, the id of a sandbox."""
    return f"{job}.{attempt}"


class Folders:
    """The folders of attempts: `jobs/<job>.<attempt>/`. One that is to be removed is put aside first, so that a half
    removed one is never taken for a whole one."""

    def __init__(self, root: Path) -> None:
        self._root = root / "jobs"
        self._gone = root / "gone"
        self._sweeping = asyncio.Lock()
        for folder in (self._root, self._gone):
            folder.mkdir(parents=True, exist_ok=True, mode=0o711)

    def path(self, key: str) -> Path:
        """Where an attempt's folder is, or would be."""
        return self._root / key

    def make(self, start: Start, trace: str) -> Note:
        """The folder of an attempt and its note; those that are there are kept."""
        folder = self.path(key_of(start.job, start.attempt))
        note = None
        try:
            folder.mkdir(mode=0o711)
        except FileExistsError:
            note = _read(folder)
        if note is None:
            note = Note(start=start, token=secrets.token_hex(8), trace=trace)
            _write(folder, note)
        return note

    def scan(self) -> Iterator[tuple[Path, Note | None]]:
        """The folders of attempts that there are, each with its note when it has a sound one. What is not named as
        one was not made here, and is nobody's to touch."""
        for entry in sorted(self._root.iterdir()):
            if KEY.match(entry.name):
                yield entry, _read(entry)

    async def remove(self, folder: Path) -> None:
        """Remove a folder and all that a sandbox may have made in it."""
        try:
            folder.rename(self._gone / f"{folder.name}-{secrets.token_hex(4)}")
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("cannot put %s aside: %s", folder, error)
        await self.sweep()

    async def sweep(self) -> None:
        """Remove what was put aside to be removed. What cannot be removed is said, and tried again next time."""
        async with self._sweeping:
            for entry in list(self._gone.iterdir()):
                if not _GONE.match(entry.name):
                    continue
                try:
                    await asyncio.to_thread(remove_tree, entry)
                except OSError as error:
                    log.error("cannot remove %s: %s", entry, error)


def _read(folder: Path) -> Note | None:
    try:
        note = msgspec.json.decode((folder / _NOTE).read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None
    sound = JOB.match(note.start.job) and folder.name == key_of(note.start.job, note.start.attempt)
    return note if sound else None


def _write(folder: Path, note: Note) -> None:
    temporary = f"{folder}/{_NOTE}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "wb", buffering=0) as file:  # noqa: PTH123
        file.write(encode(note))
        os.fsync(fd)
    os.rename(temporary, f"{folder}/{_NOTE}")  # noqa: PTH104
