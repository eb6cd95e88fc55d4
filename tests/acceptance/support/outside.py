"""A running system from the outside: one `pitstop up`, and whoever publishes, listens, enters and reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from jsonschema import Draft202012Validator
from nats.aio.msg import Msg
from tests.cli_system import Home, Up, processes_of, up
from tests.patience import PATIENCE
from tests.screens import Screen

from pitstop_common.bus import Bus, connected
from pitstop_common.pull import Delivery, read_all

SECONDS = PATIENCE
SCHEMAS = Path(__file__).parents[3] / "schemas" / "v1"
NAMES = (
    "run.requested", "run.accepted", "run.cancel", "run.queued", "run.started", "run.finished", "run.rejected",
    "run.duplicate", "job.claimed", "job.paused", "job.resumed", "job.finished", "step.started", "step.finished",
    "sandbox.ready", "sandbox.failed", "sandbox.lost", "ssh.connected", "ssh.active", "ssh.used", "ssh.closed",
    "ssh.denied", "session.expired", "session.expiring", "session.extended",
)  # fmt: skip
_Found = TypeVar("_Found")


class Person:
    """Somebody with a key pair in files."""

    def __init__(self, key: Path) -> None:
        self.key = key
        self.name = key.name
        self.public = Path(f"{key}.pub").read_text().strip()

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        told = subprocess.run(["ssh-keygen", "-lf", f"{self.key}.pub"], check=True, capture_output=True, text=True)
        return told.stdout.split()[1]


class Place:
    """One `pitstop up`, in a folder of its own."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.system: Up
        self.known_hosts = home.folder / "known_hosts"
        self._people: dict[str, Person] = {}

    def started(self, system: Up) -> None:
        """It runs (again)."""
        self.system = system
        self.known_hosts.write_text(self.facts["ssh"]["known_hosts"] + "\n")

    @property
    def facts(self) -> dict[str, Any]:
        """What `pitstop up --json` printed."""
        return self.system.facts

    def person(self, name: str = "ada") -> Person:
        """Made when first asked for."""
        if name not in self._people:
            key = self.home.folder / "people" / name
            key.parent.mkdir(exist_ok=True)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            self._people[name] = Person(key)
        return self._people[name]

    def url(self, user: str) -> str:
        """The NATS URL of one of the users that `pitstop up` made: how a test plays a service."""
        password = json.loads((self.home.dir / "credentials.json").read_text())[user]
        return f"nats://{user}:{password}@{self.facts['nats'].rpartition('@')[2]}"

    def pid(self, name: str) -> int:
        """Of a service, or of `nats-server`; 0 when it does not run."""
        for pid, command in processes_of(self.home.dir).items():
            if f"-m pitstop_{name} " in f"{command} " or (name == "nats-server" and name in command):
                return pid
        return 0

    def ssh_args(self, job: str, *options: str, person: Person | None = None) -> list[str]:
        """Stock OpenSSH with no settings of this machine, which never asks anything."""
        at = self.facts["ssh"]
        return [
            "ssh", "-F", "none", *options, "-p", str(at["port"]), "-i", str((person or self.person()).key),
            "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", f"UserKnownHostsFile={self.known_hosts}",
            "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes",
            "-o", "LogLevel=INFO", f"{job}@{at['host']}",
        ]  # fmt: skip

    @contextlib.contextmanager
    def screen(self, job: str, *command: str, options: Sequence[str] = (), person: Person | None = None,
               columns: int = 80, rows: int = 24) -> Iterator[Screen]:  # fmt: skip
        """A person's terminal with ssh in it, for the length of a block."""
        shown = Screen([*self.ssh_args(job, *options, person=person), *command], columns, rows)
        try:
            yield shown
        finally:
            shown.close()


@contextlib.contextmanager
def running(folder: Path, *options: str, more: Mapping[str, str] | None = None) -> Iterator[Place]:
    """A system for the length of a block. At its end nothing of it may be left but its state and its logs."""
    place = Place(Home(folder))
    with up(place.home, *options, more=more) as system:
        place.started(system)
        yield place
    assert left(place.home) == []


def left(home: Home) -> list[str]:
    """What a stopped system should not have left: processes, mounts, sockets, files of its run time."""
    found = [f"process {pid}: {command}" for pid, command in processes_of(home.dir).items()]
    found += [
        f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(home.dir) in line
    ]
    for path in home.dir.rglob("*"):
        if stat.S_ISSOCK(path.lstat().st_mode) or stat.S_ISFIFO(path.lstat().st_mode):
            found.append(f"socket {path}")
    gone = (*(home.dir / name for name in ("client.json", "publisher.json")), *(home.dir / "nats").glob("*.ports"))
    found += [f"file {path}" for path in gone if path.exists()]
    found += [f"in {name}: {path}" for name in ("run", "sandbox/jobs") for path in (home.dir / name).iterdir()]
    return found


class Heard(NamedTuple):
    """A message on a bare name."""

    subject: str
    headers: dict[str, str]
    data: bytes

    @property
    def body(self) -> dict[str, Any]:
        """Its JSON object."""
        found: dict[str, Any] = json.loads(self.data)
        return found

    @property
    def trace(self) -> str:
        """The trace id of its `traceparent`; empty without one."""
        return self.headers.get("traceparent", "").partition("-")[2].partition("-")[0]


class Done(NamedTuple):
    """A command that ended."""

    status: int
    out: str
    err: str


class Outside:
    """One NATS connection with the owner's credential, and everything that was heard on it."""

    def __init__(self, place: Place, bus: Bus) -> None:
        self.place = place
        self.bus = bus
        self.heard: list[Heard] = []
        self._news = asyncio.Event()

    async def listen(self) -> None:
        """Hear every bare name."""
        for name in NAMES:
            await self.bus.nc.subscribe(name, cb=self._hear)
        await self.bus.nc.flush()

    async def _hear(self, message: Msg) -> None:
        self.heard.append(Heard(message.subject, dict(message.headers or {}), message.data))
        self._news.set()
        self._news = asyncio.Event()

    async def until(self, find: Callable[[], _Found | None], seconds: float = SECONDS, what: str = "") -> _Found:
        """What `find` gives, once it gives something; it is asked again at each message that is heard."""
        try:
            async with asyncio.timeout(seconds):
                while not (found := find()):
                    await self._news.wait()
        except TimeoutError:
            told = [f"{one.subject} {one.data[:300].decode(errors='replace')}" for one in self.heard[-30:]]
            raise AssertionError("\n".join([f"not heard in {seconds} s: {what}; last heard:", *told])) from None
        return found

    def all(self, subject: str, **fields: Any) -> list[Heard]:
        """What was heard on a bare name, with these fields."""
        named = (one for one in self.heard if one.subject == subject)
        return [one for one in named if not fields or fields.items() <= one.body.items()]

    async def hear(self, subject: str, count: int = 1, seconds: float = SECONDS, **fields: Any) -> dict[str, Any]:
        """The body of the message number `count` with these fields."""
        what = f"{subject} {fields}" + (f" number {count}" if count > 1 else "")

        def find() -> list[Heard] | None:
            found = self.all(subject, **fields)
            return found if len(found) >= count else None

        return (await self.until(find, seconds, what))[count - 1].body

    async def publish(self, body: Any, headers: dict[str, str] | None = None, subject: str = "run.requested") -> None:
        """As any system does: JSON on a subject, and no word of JetStream."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.bus.nc.publish(subject, data, headers=headers)

    async def request(self, *steps: str | dict[str, Any], org: str = "acme", headers: dict[str, str] | None = None,
                      **body: Any) -> Run:  # fmt: skip
        """Ask for a run; returns when it is queued. A request for a session lets `ada` in by her key, unless it says
        itself who may enter."""
        wanted: dict[str, Any] = {"id": uuid.uuid4().hex, "org": org, "project": "web", "actor": "ada", **body}
        if steps:
            wanted["steps"] = [{"run": step} if isinstance(step, str) else step for step in steps]
        if "ssh" in wanted:
            wanted["ssh"] = {"keys": [self.place.person().public], **wanted["ssh"]}
        await self.publish(wanted, headers)
        event = await self.hear("run.queued", org=org, request=wanted["id"])
        return Run(self, wanted, event["run"], event["jobs"])

    async def api(self, verb: str, body: Any = None, *, org: str = "acme", actor: str = "ada") -> Any:
        """A request on `api.<org>.<actor>.<verb>`."""
        reply = await self.bus.nc.request(f"api.{org}.{actor}.{verb}", json.dumps(body or {}).encode(), timeout=10)
        return json.loads(reply.data)

    async def stored(self, stream: str, subject: str | None = None) -> list[Delivery]:
        """Everything in a stream, with the server's time stamps."""
        return await read_all(self.bus, stream, subject)

    async def ssh(self, job: str, *command: str, options: Sequence[str] = (), stdin: bytes = b"",
                  person: Person | None = None) -> Done:  # fmt: skip
        """OpenSSH to its end, off a terminal."""
        client = await asyncio.create_subprocess_exec(
            *self.place.ssh_args(job, *options, person=person), *command, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(SECONDS):
                out, err = await client.communicate(stdin)
        finally:
            if client.returncode is None:
                client.kill()
                await client.wait()
        assert client.returncode is not None
        return Done(client.returncode, out.decode(errors="replace"), err.decode(errors="replace"))

    def check_schemas(self) -> None:
        """Every event that was heard is as its published schema says."""
        for one in self.heard:
            if one.subject != "run.requested":
                validator(one.subject).validate(one.body)
                assert one.body["type"] == one.subject


@contextlib.asynccontextmanager
async def outside(place: Place) -> AsyncIterator[Outside]:
    """Somebody outside, for the length of a block. Every event heard meanwhile is held against its schema."""
    async with connected(place.facts["nats"], "acceptance") as bus:
        someone = Outside(place, bus)
        await someone.listen()
        yield someone
        someone.check_schemas()


class Run:
    """One run, as its publisher follows it."""

    def __init__(self, outside: Outside, body: dict[str, Any], id: str, jobs: dict[str, str]) -> None:
        self.outside = outside
        self.body = body
        self.id = id
        self.jobs = jobs
        self.org: str = body["org"]

    @property
    def job(self) -> str:
        """The only job."""
        (job,) = self.jobs.values()
        return job

    def all(self, subject: str, **fields: Any) -> list[dict[str, Any]]:
        """The bodies of what was heard about it."""
        return [one.body for one in self.outside.all(subject, run=self.id, **fields)]

    async def hear(self, subject: str, count: int = 1, seconds: float = SECONDS, **fields: Any) -> dict[str, Any]:
        """The body of a message about it."""
        return await self.outside.hear(subject, count, seconds, run=self.id, **fields)

    async def paused(self, count: int = 1) -> dict[str, Any]:
        """It waits for its person."""
        return await self.hear("job.paused", count)

    async def finished(self, seconds: float = SECONDS) -> str:
        """Its result."""
        return str((await self.hear("run.finished", seconds=seconds))["result"])

    async def ssh(self, *command: str, **options: Any) -> Done:
        """Run a command in its job."""
        return await self.outside.ssh(self.job, *command, **options)

    @contextlib.contextmanager
    def shell(self, **options: Any) -> Iterator[Screen]:
        """An interactive shell in its job."""
        with self.outside.place.screen(self.job, **options) as screen:
            yield screen

    async def exit(self, words: str = "exit") -> None:
        """Enter, and leave as a person does."""
        with self.shell() as screen:
            await screen.until(PROMPT)
            screen.type(f"{words}\n")
            await screen.ended()

    async def status(self) -> dict[str, Any]:
        """As the API answers."""
        found: dict[str, Any] = await self.outside.api("status", {"run": self.id}, org=self.org)
        return found

    async def entry(self, holds: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """The status of its only job, once it holds."""
        async with asyncio.timeout(SECONDS):
            while True:
                status = await self.status()
                assert "jobs" in status, status
                (found,) = status["jobs"]
                if holds(found):
                    return dict(found)
                await asyncio.sleep(0.05)

    async def steps(self) -> list[dict[str, Any]]:
        """The steps in its record, of its only job."""
        return list((await self.entry())["report"]["steps"])

    async def cancel(self) -> None:
        """As a person does."""
        assert (await self.outside.api("cancel", {"run": self.id}, org=self.org))["ok"]

    async def log(self, step: int, tries: int = 1, job: str = "") -> list[str]:
        """The lines of a step as a reader has them: those it had before are dropped, and none may be missing."""
        lines: list[str] = []
        for message in await self.outside.stored("LOGS", f"logs.{self.org}.{self.id}.{job or self.job}"):
            chunk = msgspec.json.decode(message.data)
            validator("log.chunk").validate(chunk)
            if (chunk["step"], chunk["tries"], chunk["kind"]) == (step, tries, "output"):
                first = chunk["first"]
                assert first <= len(lines), f"lines {len(lines)} to {first} of step {step} are missing"
                again = lines[first : first + len(chunk["lines"])]
                assert chunk["lines"][: len(again)] == again, "a line came again as another"
                lines += chunk["lines"][len(again) :]
        return lines


PROMPT = "work$ "
_validators: dict[str, Draft202012Validator] = {}


def validator(name: str) -> Draft202012Validator:
    """Of a published schema."""
    if name not in _validators:
        _validators[name] = Draft202012Validator(json.loads((SCHEMAS / f"{name}.json").read_text()))
    return _validators[name]
