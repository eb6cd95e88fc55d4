"""A run as it is stored and run: the request, checked and compiled. Lives once, in SPECS, by reference elsewhere."""

from __future__ import annotations

from typing import Literal

import msgspec

Condition = Literal["success", "failure", "always", "cancelled"]
OnExpiry = Literal["cancel", "resume"]
Retry = Literal["", "infrastructure"]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where checkout takes the tree from. `git` is a URL without credentials, or an absolute path on the host."""

    git: str = ""
    ref: str = ""
    sha: str = ""
    patch: str = ""
    """What checkout of this commit applies: a diff as `git diff --binary` writes it."""
    patch_encoding: Literal["", "zlib"] = ""
    """zlib: `patch` is the base64 of the deflated diff."""


class StepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `index` counts from 1. `timeout` in seconds, 0 = none."""

    index: int
    name: str
    kind: Literal["run", "checkout"] = "run"
    id: str = ""
    run: str = ""
    shell: str = ""
    """bash, sh, python, pwsh, or a command with `{0}` in it for the script's file.
    Empty: `bash -e` where there is bash, else `sh -e` (as GitHub does); `bash` means `-eo pipefail`."""
    env: dict[str, str] = {}
    working_directory: str = ""
    condition: Condition = "success"
    continue_on_error: bool = False
    timeout: float = 0
    options: dict[str, str] = {}
    """`with:` of checkout: ref, path, fetch-depth."""


class PausePlan(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job stops for a person. Several may hold."""

    on_failure: bool = False
    any_failure: bool = False
    """With on_failure: also where the step has `continue-on-error`."""
    at_end: bool = False
    after_step: int = 0
    before_step: int = 0
    hold: str = ""
    hold_user: str = ""
    """The hold that its start came with, and whose: it waits for them at its first failure. Known to its host only."""
    direct: bool = False
    """A session from the start, without stopping the steps."""

    @property
    def any(self) -> bool:
        """Does this job offer a session at all."""
        return self.on_failure or self.at_end or self.direct or self.after_step > 0 or self.before_step > 0


class SessionPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Who may enter and for how long. Times in seconds."""

    users: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    connect_window: float = 600
    idle_timeout: float = 900
    max_duration: float = 0
    """0: that of the org."""
    on_expiry: OnExpiry = "cancel"


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One job. `job` is its id, `key` its name in the file, `timeout` seconds of running time (pauses excluded)."""

    job: str
    key: str
    name: str
    steps: tuple[StepSpec, ...]
    env: dict[str, str] = {}
    pool: str = "default"
    runs_on: tuple[str, ...] = ()
    """Labels that its pool has to have, in small letters; its hosts are in `pool` when they have been found."""
    image: str = ""
    timeout: float = 6 * 3600
    pause: PausePlan = PausePlan()
    secrets: tuple[str, ...] = ()
    """Contexts by name. Their values are in no spec: the host fetches them."""


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `trace` is the W3C traceparent of the request (or one made at intake)."""

    run: str
    org: str
    project: str
    request: str
    actor: str
    jobs: tuple[JobSpec, ...]
    source: Source = Source()
    session: SessionPolicy = SessionPolicy()
    priority: int = 0
    retry: Retry = ""
    """infrastructure: a job whose host is lost, or cannot make its sandbox, is tried once more."""
    trace: str = ""
    rerun_of: str = ""
    """The run that this one does again."""
    notes: tuple[str, ...] = ()
    """What the scheduler made of the request that was not asked for, in words."""
    created: str = ""
    """RFC 3339, the server's time stamp of the request."""
    vouched: bool = False
    """NATS permissions vouch for the actor: a person asked over the API. Else a machine named them."""

    def job(self, job: str) -> JobSpec:
        """The job of that id; KeyError when the run has none such."""
        for candidate in self.jobs:
            if candidate.job == job:
                return candidate
        raise KeyError(job)
