"""The nouns of the scheduler: jobs, runs, orgs, hosts, and the state that is a fold of the decision log.

`State` is changed by `fold.apply` only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from copy import copy
from itertools import islice, takewhile
from typing import Final, Literal

import msgspec

from pitstop_common.limits import KNOWN_FOR, LONGEST_SESSION, MAX_DURATION, PRESSURE
from pitstop_common.messages import ExpiryReason, JobStatus, PauseReason, Result
from pitstop_common.roles import ProjectRules, Role
from pitstop_common.ssh_policy import OrgSsh
from pitstop_scheduler.forced import Forced
from pitstop_scheduler.hold import Hold, OnJob
from pitstop_scheduler.host import Host as Host
from pitstop_scheduler.pool import Pool
from pitstop_scheduler.queues import Queues
from pitstop_scheduler.turns import Turn, turn_at

_KNOWN_STEP: Final = 600.0
"""Known runs are forgotten in bundles of so many seconds."""


class Job(msgspec.Struct, omit_defaults=True, gc=False):
    """A job's scheduling fields. Times are seconds since the epoch by the server's clock, 0 = not yet."""

    id: str
    run: str
    key: str
    pool: str
    offers: bool
    status: JobStatus = "queued"
    attempt: int = 0
    result: Result | Literal[""] = ""
    reason: str = ""
    host: str = ""
    incarnation: str = ""
    queued: float = 0
    granted: float = 0
    pause: PauseReason | Literal[""] = ""
    so_far: Result = "success"
    paused: float = 0
    sessions: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    """Every session that ever entered: a late `ssh.connected` of one that has left changes nothing."""
    first_login: float = 0
    active: float = 0
    deadline: float = 0
    deadline_reason: ExpiryReason | Literal[""] = ""
    warn_at: float = 0
    revision: int = 0
    warned: int = 0
    """The revision of the deadline that people were warned of."""
    keep_until: float = 0
    finished: float = 0
    serial: int = 0
    """Of the newest report: older facts of the attempt change nothing."""
    seal: str = ""
    """The public key of its host: from the first claim of the attempt, whatever later ones say."""
    earlier: tuple[str, ...] = ()
    """Why earlier attempts were lost."""
    hold: OnJob | None = None
    forced: Forced | None = None


class Run(msgspec.Struct, omit_defaults=True, gc=False):
    """A run. `source` is the message that started it."""

    id: str
    org: str
    project: str
    request: str
    actor: str
    priority: int
    source: str
    trace: str
    jobs: tuple[str, ...]
    connect_window: float
    idle_timeout: float
    max_duration: float
    on_expiry: Literal["cancel", "resume"]
    created: float = 0
    started: float = 0
    finished: float = 0
    result: Result | Literal[""] = ""
    reason: str = ""
    retry: bool = False
    ref: str = ""
    rerun_of: str = ""
    reruns: int = 0
    """How many times it was done again while it lives."""
    place: int = 0
    """Counts runs up as they come: a job that is tried again finds its old place in the queue by it."""


class Org(msgspec.Struct):
    """An org's limits and what is in use. `slots` None: the default. `turn`: where its next job starts."""

    slots: int | None = None
    weight: int = 1
    projects: dict[str, int] = {}
    used: int = 0
    used_by_project: dict[str, int] = {}
    turn: float = 0
    pressure: float = PRESSURE
    max_duration: float = MAX_DURATION
    longest_session: float = LONGEST_SESSION
    pressed: float = 0
    """Since when runs of the org wait; 0: none does."""
    configured: bool = False
    """Its limits were set, and are not those of the deployment."""
    roles: dict[str, Role] | None = None
    """None: no table, whoever has a credential of the org has the role write. Never changed in place."""
    rules: dict[str, ProjectRules] = {}
    """Of projects. Never changed in place."""
    ssh: OrgSsh = OrgSsh()
    holds: dict[str, Hold] = {}
    """By id, oldest first. Never changed in place."""


class State(Queues):
    """The fold."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.owner = ""
        self.head = 0
        self.watermark = 0
        self.now = 0.0
        self.published_to = 0
        self.org_slots = self.project_slots = self.pool_slots = 0
        self.partition, self.partitions = 0, 1
        self.turn = 0.0
        """Virtual time of the weighted round: the turn of the org that was served last."""
        self.placed = 0
        """How many runs were queued so far."""
        self.jobs: dict[str, Job] = {}
        self.runs: dict[str, Run] = {}
        self.orgs: dict[str, Org] = {}
        self.hosts: dict[str, Host] = {}
        self.pools: dict[str, Pool] = {}
        self.ended: deque[tuple[int, str]] = deque()
        self.known: dict[str, str] = {}
        """Ended runs that have left the fold, with their source: their requests stay duplicates. Oldest first."""
        self.known_by: deque[tuple[float, int]] = deque()
        """How many of them came until when: what is forgotten after KNOWN_FOR, without a time beside each."""
        self.records = 0
        """How many were folded."""
        self.visited: dict[str, set[str]] = {}
        """Org -> jobs with somebody inside. As `turns`, it follows from the rest."""
        self._copied: tuple[set[str], set[str], set[str]] | None = None
        """Jobs, runs and orgs copied since `pin`; None: nobody reads the state behind the fold's back."""

    # -- reading ---------------------------------------------------------------------------------------------------

    def job(self, id: str) -> Job | None:
        """A living job."""
        return self.jobs.get(id)

    def run(self, id: str) -> Run | None:
        """A living run."""
        return self.runs.get(id)

    def org(self, id: str) -> Org:
        """An org; one nobody has heard of has default limits."""
        return self.orgs.get(id) or Org()

    def pool(self, id: str) -> Pool:
        """A pool."""
        return self.pools.get(id) or Pool()

    def host(self, id: str) -> Host | None:
        """A host."""
        return self.hosts.get(id)

    def living_jobs(self) -> Iterator[Job]:
        """Jobs that have not ended."""
        yield from (job for job in self.jobs.values() if job.status != "finished")

    def all_hosts(self) -> Iterator[Host]:
        """Every host that ever announced room."""
        yield from self.hosts.values()

    def source_of(self, run: str) -> str | None:
        """The message that started a run, living or ended; None when there is no such run."""
        living = self.run(run)
        return living.source if living else self.known.get(run)

    def place(self, job: str) -> tuple[int, int]:
        """When it came: sorts the jobs of a queue."""
        found = self.job(job)
        run = self.run(found.run) if found else None
        return (run.place, run.jobs.index(job)) if run else (0, 0)

    def pool_of(self, job: str) -> str:
        return self.jobs[job].pool

    def turn_of(self, id: str) -> Turn | None:
        org = self.org(id)
        limit = self.org_slots if org.slots is None else org.slots
        return None if limit and org.used >= limit else turn_at(org.turn, org.weight)

    # -- changing (fold only) ----------------------------------------------------------------------------------------

    def edit_job(self, id: str) -> Job:
        """A job, to be changed."""
        if self._copied is not None and id not in self._copied[0]:
            self._copied[0].add(id)
            self.jobs[id] = copy(self.jobs[id])
        return self.jobs[id]

    def edit_run(self, id: str) -> Run:
        """A run, to be changed."""
        if self._copied is not None and id not in self._copied[1]:
            self._copied[1].add(id)
            self.runs[id] = copy(self.runs[id])
        return self.runs[id]

    def edit_org(self, id: str) -> Org:
        """An org, to be changed."""
        org = self.orgs.get(id)
        if org is None:
            org = self.orgs[id] = Org()
        elif self._copied is not None and id not in self._copied[2]:
            self._copied[2].add(id)
            org = self.orgs[id] = msgspec.structs.replace(
                org, projects=dict(org.projects), used_by_project=dict(org.used_by_project)
            )
        return org

    def edit_pool(self, id: str) -> Pool:
        """A pool, to be changed."""
        return self.pools.setdefault(id, Pool())

    def put_host(self, host: Host) -> None:
        """A new or changed host."""
        self.hosts[host.id] = host

    def add(self, run: Run, jobs: list[Job]) -> None:
        """A new run."""
        self.runs[run.id] = run
        self.placed = run.place
        for job in jobs:
            self.jobs[job.id] = job

    def ending(self, published_to: int) -> list[Run]:
        """The runs that `forget` will let go of."""
        return [self.runs[run] for _, run in takewhile(lambda one: one[0] <= published_to, self.ended)]

    def forget(self, published_to: int) -> None:
        """Let go of runs that ended in records whose effects are all out, and of known ones that ended long ago."""
        self.published_to = max(self.published_to, published_to)
        while self.ended and self.ended[0][0] <= self.published_to:
            run = self.runs.pop(self.ended.popleft()[1])
            self._know(run)
            for job in run.jobs:
                del self.jobs[job]
        while self.known_by and self.known_by[0][0] + KNOWN_FOR < self.now:
            for id in tuple(islice(self.known, self.known_by.popleft()[1])):
                del self.known[id]

    def _know(self, run: Run) -> None:
        self.known[run.id] = run.source
        last = self.known_by[-1] if self.known_by else None
        if last is not None and self.now <= last[0]:
            self.known_by[-1] = (last[0], last[1] + 1)
        else:
            self.known_by.append((self.now + _KNOWN_STEP, 1))

    # -- a view that stays as it is (snapshots) ----------------------------------------------------------------------

    def pin(self) -> None:
        """From now on a job, run or org is copied before it is changed, until `unpin`: whoever took a list of them
        reads them as they are now."""
        self._copied = (set(), set(), set())

    def unpin(self) -> None:
        """Nobody reads an earlier state any more."""
        self._copied = None
