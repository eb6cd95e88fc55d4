"""What must hold in the end, found from what is stored, and not by the product's fold.

Only decoding is shared with what is checked. Each method adds to `wrong`, with the ids.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from nats.js.api import StreamConfig, StreamSource
from tests.chaos.books import Books
from tests.chaos.load import BAD
from tests.chaos.processes import System

from pitstop_common import ids, streams, subjects
from pitstop_common import messages as m
from pitstop_common.bucket import Bucket
from pitstop_common.bus import Bus
from pitstop_common.limits import OWNER_TTL
from pitstop_common.pull import Delivery, read_all
from pitstop_scheduler import changes as c

EXPECTED: Final[dict[str, frozenset[str]]] = {
    "plain": frozenset({"success"}), "two": frozenset({"success"}), "jobs": frozenset({"success"}),
    "unnamed": frozenset({"success"}), "resumes": frozenset({"success"}), "fails": frozenset({"failure"}),
    "expires": frozenset({"cancellation"}), "cancelled": frozenset({"cancellation", "success"}),
    "real": frozenset({"success"}), "long": frozenset({"success"}),
}  # fmt: skip
_SHOWN: Final = 5
_VIEWS_TRAIL: Final = 10.0
_NOBODY: Final = m.Claim(host="", incarnation="")


class Figures(msgspec.Struct, kw_only=True):
    """The sums that are printed."""

    requested: int = 0
    ended: int = 0
    lost: int = 0
    twice: int = 0
    leaked: int = 0
    errors: int = 0
    retried: int = 0
    epochs: int = 0
    duplicates: int = 0
    rejected: int = 0
    latencies: list[float] = []
    takeovers: list[float] = []
    """Seconds from the end of an owner to the first record of the next, where the server was up all the time."""


class Copy:
    """A mirror of the decision log: what is trimmed behind a snapshot must be checked, too. The server itself keeps it,
    so it misses nothing however late it is read."""

    _NAME: Final = "CHAOS_DEC"

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def begin(self) -> None:
        """Before the first record is trimmed."""
        await self._bus.js.add_stream(StreamConfig(name=self._NAME, mirror=StreamSource(name=streams.DEC)))

    async def all(self) -> list[Delivery]:
        """To its end. AssertionError when a record is missing."""
        head = (await self._bus.js.stream_info(streams.DEC)).state.last_seq
        async with asyncio.timeout(30):
            while (await self._bus.js.stream_info(self._NAME)).state.last_seq < head:
                await asyncio.sleep(0.05)
        items = await read_all(self._bus, self._NAME, None)
        assert [item.seq for item in items] == list(range(1, items[-1].seq + 1)), "records are missing"
        return items


class Checker:
    """Reads everything once."""

    def __init__(self, system: System, bus: Bus, asked: dict[str, str], log: Copy, dethroned: list[float],
                 lost: frozenset[str]) -> None:  # fmt: skip
        """`dethroned`: when owners were killed or stopped, seconds since the epoch. `lost`: incarnations of hosts that
        were stopped for so long that they must be called lost."""
        self._system, self._bus, self.asked, self._copy, self._dethroned = system, bus, asked, log, dethroned
        self._lost = lost
        self.figures = Figures()
        self.wrong: list[str] = []
        self.books = Books()

    async def check(self) -> None:
        """All of it."""
        await self._requests()
        await self._log()
        await self._events()
        await self._facts()
        await self._claims()
        await self._left_over()
        await self._views()
        self._expectations()

    # -- what was asked --------------------------------------------------------------------------------------------

    async def _requests(self) -> None:
        """Every message of the two request streams, and what became of it."""
        self.stored_at: dict[str, float] = {}
        bad = set()
        for name in (streams.REQ, streams.REQ_ORG):
            for item in await read_all(self._bus, name, None):
                if name == streams.REQ and item.headers.get("Nats-Stream") == streams.REQ_ORG:
                    continue
                if BAD in item.headers:
                    bad.add(f"{name}:{item.seq}")
                else:
                    self.stored_at.setdefault(_run_of(name, item), item.stored)
        self.figures.requested = len(self.stored_at)
        self.say("acknowledged, and not stored", set(self.asked) - set(self.stored_at))
        letters = [f"{item.headers.get('Pitstop-Stream')}:{item.headers.get('Pitstop-Seq')}"
                   for item in await read_all(self._bus, streams.DLQ, None)]  # fmt: skip
        self.say("bad messages not kept", bad - set(letters))
        self.say("good messages among the dead letters", set(letters) - bad)
        self.say("dead letters kept twice", _repeated(letters))
        self.figures.rejected = len(bad)

    # -- what the log says -----------------------------------------------------------------------------------------

    async def _log(self) -> None:
        books = self.books
        before: dict[str, c.Record] = {}
        for item in await self._copy.all():
            record = c.decode_record(item.data)
            last = before.get(item.subject, c.Record(0, 0, "", 0, 0.0, 0, ()))
            if record.watermark < last.watermark or record.epoch < last.epoch:
                self.wrong.append(f"record {item.seq} goes back")
            if record.epoch > last.epoch and item.subject == subjects.decisions(0):
                self._took_over(item.stored)
            before[item.subject] = record
            for change in record.changes:
                books.take(change, item.seq)
        self.figures.epochs = sum(record.epoch for record in before.values())
        self.figures.ended = len(self.books.results)
        self.figures.retried = len(self.books.retried)
        self.say("runs that never ended", set(self.stored_at) - set(self.books.results))
        self.say("runs that nobody asked for", set(self.books.results) - set(self.stored_at))
        self.figures.lost = len(set(self.stored_at) - set(self.books.results))
        self.say("hosts called lost that were away for seconds only", self.books.lost - self._lost)
        self.say("hosts not called lost that were away for long", self._lost - self.books.lost)
        self.say("attempts granted more than once", {key for key, count in self.books.granted.items() if count > 1})
        books.settle()
        self.wrong += books.wrong
        self.figures.leaked += books.held

    def _took_over(self, at: float) -> None:
        before = [ended for ended in self._dethroned if ended < at]
        self._dethroned = [ended for ended in self._dethroned if ended >= at]
        if before and not any(up > before[0] - OWNER_TTL and down < at for down, up in self._system.down):
            self.figures.takeovers.append(at - before[0])

    # -- what was told ---------------------------------------------------------------------------------------------

    async def _events(self) -> None:
        """Each once; also those that a dead owner had not published, or had."""
        told: dict[str, Counter[str]] = defaultdict(Counter)
        ids_ = []
        for item in await read_all(self._bus, streams.EVENTS, None):
            type_, _, run = item.subject.rsplit(".", 2)
            told[type_][run] += 1
            event = json.loads(item.data)
            ids_.append(event["id"])
            if type_ == "run.finished":
                if event["result"] != self.books.results.get(run):
                    self.wrong.append(f"run {run}: told {event['result']}, the log says {self.books.results.get(run)}")
                self.figures.latencies.append(item.stored - self.stored_at.get(run, item.stored))
        for type_ in ("run.queued", "run.finished"):
            self.say(f"{type_} never told", set(self.books.results) - set(told[type_]))
            self.say(f"{type_} told more than once", {run for run, count in told[type_].items() if count > 1})
        self.say("run.started told more than once", {run for run, n in told["run.started"].items() if n > 1})
        self.say("events stored twice", _repeated(ids_))
        self.figures.duplicates = sum(told["run.duplicate"].values())
        if sum(told["run.rejected"].values()) != self.figures.rejected:
            self.wrong.append(f"{sum(told['run.rejected'].values())} rejections of {self.figures.rejected}")

    async def _facts(self) -> None:
        """A try of a step begins once and ends once, and a job ends once, whoever says so."""
        begun: Counter[Any] = Counter()
        facts = []
        for item in await read_all(self._bus, streams.IN, None):
            fact = m.decode_fact(item.data)
            facts.append(f"{item.subject.split('.')[1]} {fact.id}")  # what is about a host, every partition hears
            if isinstance(fact, m.StepStarted):
                begun["started", fact.job, fact.attempt, fact.step, fact.attempts] += 1
            elif isinstance(fact, m.StepFinished):
                begun["finished", fact.job, fact.attempt, fact.step, fact.serial] += 1
            elif isinstance(fact, m.JobFinished):
                begun["job.finished", fact.job, fact.attempt] += 1
        twice = {key for key, count in begun.items() if count > 1}
        self.say("facts of a step or a job told twice", twice)
        self.say("facts stored twice", _repeated(facts))
        self.figures.twice += len(twice)

    async def _claims(self) -> None:
        claims = await Bucket(self._bus, "claims").scan()
        keys = {f"{job}.{attempt}" for job, attempt in self.books.granted}
        self.say("claims on what was never granted", set(claims) - keys)
        for (job, attempt), said in self.books.claims.items():
            entry = claims.get(f"{job}.{attempt}")
            holder = msgspec.json.decode(entry.value, type=m.Claim) if entry and entry.value else _NOBODY
            if {host for host, _ in said} != {holder.host}:
                self.wrong.append(f"{job}.{attempt} is claimed by {holder.host or 'nobody'}, the log says {said}")

    async def _left_over(self) -> None:
        for name in (streams.WORK,):
            state = (await self._bus.js.stream_info(name)).state
            if state.messages:
                self.figures.leaked += state.messages
                self.wrong.append(f"{state.messages} messages are left in {name}")
        for stream, consumer in ((streams.REQ, streams.INTAKE), (streams.REQ_ORG, streams.INTAKE),
                                 (streams.TIMERS, streams.EXPIRY), (streams.POISON, streams.DEAD_LETTERS)):  # fmt: skip
            info = await self._bus.js.consumer_info(stream, consumer)
            if info.num_pending or info.num_ack_pending:
                self.wrong.append(f"{stream}: {info.num_pending} pending, {info.num_ack_pending} not acknowledged")
        for item in await read_all(self._bus, streams.TIMERS, "timer.>"):
            fired = msgspec.json.decode(item.data, type=m.Fired)
            # A killed nats-server brings back older ones, of revisions that nobody asks for any more.
            if fired.revision == self.books.revisions.get(fired.job):
                self.wrong.append(f"the timer of a job that has ended is armed: {item.subject}")

    async def _views(self) -> None:
        """The read models, against the results of this reading. They trail, by a second or two after a kill."""
        deadline = time.monotonic() + _VIEWS_TRAIL
        while (wrong := await self._stale()) and time.monotonic() < deadline:
            await asyncio.sleep(0.5)
        self.wrong += wrong

    async def _stale(self) -> list[str]:
        wrong = []
        views = await Bucket(self._bus, "runs").scan()
        for run, result in self.books.results.items():
            entry = next((views[key] for key in (f"{org}.{run}" for org in self._orgs()) if key in views), None)
            found = m.decode_run_view(entry.value) if entry and entry.value else None
            if found is None or (found.status, found.result) != ("finished", result):
                wrong.append(f"read model of run {run}: {found and (found.status, found.result)}, log: {result}")
        for key, entry in views.items():
            job = key.split(".")[2] if key.count(".") == 2 else ""
            if job and entry.value:
                view = m.decode_job_view(entry.value)
                if (view.status, view.result) != ("finished", self.books.ended.get(job, ("", ""))[0]):
                    wrong.append(f"read model of job {job}: {view.status} {view.result}, {self.books.ended.get(job)}")
        return wrong

    def _orgs(self) -> Iterable[str]:
        return sorted(set(self.books.orgs.values()))

    # -- what should have come of it -------------------------------------------------------------------------------

    def _expectations(self) -> None:
        """Results as asked; another one only where a killed process had the job in its memory."""
        killed = {kill.incarnation for service in self._system.of("sandbox") for kill in service.killed} | self._lost
        for run, kind in self.asked.items():
            for job in self.books.jobs.get(run, ()):
                result, reason = self.books.ended.get(job, ("", ""))
                first = {self.books.claims[key][0][1] for key in self.books.claims if key[0] == job}
                if result == "error":
                    self.figures.errors += 1
                    if not reason or not first & killed:
                        self.wrong.append(f"job {job} ({kind}): error {reason!r}, and its host was never killed")
                elif kind in EXPECTED and result not in EXPECTED[kind]:
                    self.wrong.append(f"job {job} ({kind}) ended {result!r} {reason!r}")

    def say(self, what: str, found: Iterable[Any]) -> None:
        """Something is wrong when there are any."""
        some = sorted(map(str, found))
        if some:
            more = f" and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
            self.wrong.append(f"{what}: {', '.join(some[:_SHOWN])}{more}")


def _run_of(stream: str, item: Delivery) -> str:
    body = json.loads(item.data)
    named = body.get("id") or item.headers.get("Nats-Msg-Id")
    if named:
        return ids.run_id(body["org"], named)
    return ids.run_id_of_message(body["org"], stream, item.seq)


def _repeated(found: Iterable[str]) -> set[str]:
    return {one for one, count in Counter(found).items() if count > 1}
