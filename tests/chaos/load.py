"""What is asked of the system: thousands of requests, some twice, some wrong. All of it follows from the seed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from pitstop_common import ids, subjects
from pitstop_common.bus import Bus
from pitstop_common.errors import Unavailable
from pitstop_common.messages import OrgConfigured, encode
from pitstop_common.telemetry import headers

ORGS: Final = tuple(f"org-{number}" for number in range(6))
BAD: Final = "Chaos-Bad"
_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
_AT_ONCE: Final = 100
_AGAIN: Final = 10
_CANCEL_TRIES: Final = 600
_JUST_NOW: Final = 30
_KINDS: Final = {
    "plain": 66, "two": 10, "fails": 5, "jobs": 5, "expires": 4, "resumes": 3, "cancelled": 4, "unnamed": 3,
}  # fmt: skip
_WORKFLOW: Final = """
on: push
jobs:
  a: {{runs-on: ubuntu-latest, steps: [{{run: sleep {first}}}]}}
  b: {{runs-on: ubuntu-latest, steps: [{{run: sleep {second}}}]}}
"""
_MALFORMED: Final = (
    b"{", b"[]", b'{"org": "org-0"}', b'{"org": "ORG!", "project": "p", "steps": [{"run": "sleep 1"}]}', b"\xff\xfe",
    b'{"org": "org-1", "project": "p", "steps": []}',
    b'{"org": "org-1", "project": "p", "steps": [{"run": "x"}], "ssh": {"pause": "after_step", "step": 9}}',
)  # fmt: skip


class Letter(msgspec.Struct, frozen=True):
    """One message to publish, so many seconds after the beginning."""

    at: float
    subject: str
    data: bytes
    headers: dict[str, str]
    org: str = ""
    id: str = ""
    kind: str = ""


def letters(chance: random.Random, runs: int, seconds: float) -> list[Letter]:
    """Requests in bursts over `seconds`, in the order of their publishing."""
    found: list[Letter] = []
    number = 0
    while number < runs:
        at = chance.uniform(0, seconds)
        for _ in range(min(runs - number, chance.randint(1, max(2, runs // 30)))):
            number += 1
            found += _one(chance, number, at, seconds)
    return sorted(found, key=lambda letter: letter.at)


def _one(chance: random.Random, number: int, at: float, seconds: float) -> Iterator[Letter]:
    kind = chance.choices(list(_KINDS), list(_KINDS.values()))[0]
    org, id = chance.choice(ORGS), f"request-{number}"
    body: dict[str, Any] = {"org": org, "project": chance.choice("pq"), "actor": "ada",
                            "priority": chance.choice((0, 0, 0, 5)), **_work(chance, kind)}  # fmt: skip
    named: dict[str, str] = {}
    if kind != "unnamed":
        if chance.random() < 0.8:
            body["id"] = id
        if "id" not in body or chance.random() < 0.5:
            named["Nats-Msg-Id"] = id if "id" not in body else f"publisher-{number}"
    if number % 2:
        body["retry"] = "infrastructure"
    subject = subjects.requested_by(org) if chance.random() < 0.3 else subjects.RUN_REQUESTED
    letter = Letter(at, subject, json.dumps(body).encode(), named, org, "" if kind == "unnamed" else id, kind)
    yield letter
    if kind != "unnamed" and chance.random() < 0.08:
        again = named if "id" not in body or chance.random() < 0.5 else {}
        yield msgspec.structs.replace(letter, at=at + chance.expovariate(0.3), headers=again, kind="again")
    if chance.random() < 0.02:
        yield Letter(chance.uniform(0, seconds), subjects.RUN_REQUESTED, chance.choice(_MALFORMED), {BAD: "1"})


def _work(chance: random.Random, kind: str) -> dict[str, Any]:
    def sleep() -> dict[str, str]:
        return {"run": f"sleep {chance.randint(10, 50)}"}

    if kind == "jobs":
        return {"workflow": _WORKFLOW.format(first=chance.randint(10, 50), second=chance.randint(10, 50))}
    if kind == "fails":
        return {"steps": [{"run": "exit 3"}, sleep()]}
    if kind == "cancelled":
        return {"steps": [{"run": f"sleep {chance.randint(10, 1500)}"}]}
    if kind in {"expires", "resumes"}:
        session = {"pause": "after_step", "step": 1, "keys": [_KEY], "connect_window": chance.randint(1, 3),
                   "on_expiry": "cancel" if kind == "expires" else "resume"}  # fmt: skip
        return {"steps": [sleep(), sleep()], "ssh": session}
    return {"steps": [sleep(), sleep()] if kind == "two" else [sleep()]}


class Loader:
    """Publishes until every message is acknowledged, as a publisher does who must not lose any."""

    def __init__(self, bus: Bus, chance: random.Random, most_slots: int) -> None:
        self.bus, self._chance, self._most_slots = bus, chance, most_slots
        self._room = asyncio.Semaphore(_AT_ONCE)
        self.asked: dict[str, str] = {}
        """Run -> kind, of all that was acknowledged."""
        self.bad = 0
        self.published = asyncio.Event()
        """All letters are stored. Cancellations may wait for their answers still."""
        self._starts: list[bytes] = []

    async def publish(self, all_letters: list[Letter]) -> None:
        """Each at its time. Returns when the server has them all, and every cancellation was answered."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with asyncio.TaskGroup() as group:
            for letter in all_letters:
                await asyncio.sleep(max(0.0, begun + letter.at - loop.time()))
                await self._room.acquire()
                group.create_task(self._send(letter))
            for _ in range(_AT_ONCE):
                await self._room.acquire()
            self.published.set()
            for _ in range(_AT_ONCE):
                self._room.release()

    async def _send(self, letter: Letter) -> None:
        try:
            while True:
                try:
                    ack = await self.bus.store(letter.subject, letter.data, letter.headers)
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        finally:
            self._room.release()
        if BAD in letter.headers:
            self.bad += 1
            return
        run = ids.run_id(letter.org, letter.id) if letter.id else ids.run_id_of_message(letter.org, ack.stream, ack.seq)
        self.asked.setdefault(run, letter.kind)
        if letter.kind == "cancelled":
            await asyncio.sleep(self._chance.uniform(0, 2))
            await self._cancel(letter.org, run)

    async def _cancel(self, org: str, run: str) -> None:
        body = json.dumps({"run": run}).encode()
        for _ in range(_CANCEL_TRIES):  # those of runs that are not taken in yet are refused
            try:
                reply = await self.bus.request(subjects.api(org, "ada", "cancel"), body, 3.0)
                if b'"ok":true' in reply.data:
                    return
            except Unavailable:
                pass
            await asyncio.sleep(0.5)
        raise AssertionError(f"nobody answers the cancellation of {run}")

    async def listen(self) -> None:
        """Remember every start from now on."""

        async def heard(msg: Msg) -> None:
            self._starts.append(msg.data)

        await self.bus.subscribe(subjects.work("*"), heard)

    async def starts_again(self) -> None:
        """Some starts as if the server delivered them again, long ago or just now, to whichever host has room."""
        known = self._starts[-_JUST_NOW:] if self._chance.random() < 0.7 else self._starts
        for data in self._chance.sample(known, min(_AGAIN, len(known))):
            with contextlib.suppress(Unavailable):
                await self.bus.store(subjects.work("default"), data)

    async def all_starts_again(self) -> int:
        """Every start that was ever heard; how many. (These are heard, too.)"""
        known = list(dict.fromkeys(self._starts))
        for data in known:
            await self.bus.store_surely(subjects.work("default"), data, {})
        return len(known)

    async def more(self, prefix: str, count: int, milliseconds: int, kind: str = "plain") -> None:
        """So many requests of one step that takes so long, at once. Returns when they are stored."""
        found = []
        for number in range(count):
            org, id = ORGS[number % len(ORGS)], f"{prefix}-{number}"
            body: dict[str, Any] = {"id": id, "org": org, "project": "q"}
            body |= {"steps": [{"run": f"sleep {milliseconds}"}]}
            if kind == "long":
                body["retry"] = "infrastructure"
            found.append(Letter(0, subjects.RUN_REQUESTED, json.dumps(body).encode(), {}, org, id, kind))
        await self.publish(found)

    async def limits(self) -> None:
        """Each org's slots, and a project's: from now on others. Lower ones never kill."""
        for org in ORGS:
            slots = self._chance.randint(1, self._most_slots)
            fact = OrgConfigured(
                id=f"limits-{self._chance.getrandbits(60):x}", time="2026-01-01T00:00:00Z", org=org,
                run=subjects.NOBODY, slots=slots, weight=self._chance.randint(1, 3),
                projects={"p": self._chance.randint(1, slots)},
            )  # fmt: skip
            subject = subjects.about("org.configured", org, subjects.NOBODY)
            await self.bus.store_surely(subject, encode(fact), headers(fact.id))
