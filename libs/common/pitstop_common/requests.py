"""What a publisher may send to `run.requested`, as types. The JSON Schema and the validation come from here.

Patterns are written for JSON Schema (ECMA 262, RE2): `^…$` means the whole text.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pitstop_common import limits
from pitstop_common.spec import OnExpiry, Retry

PauseAt = Literal["after_step", "before_step", "on_failure", "at_end"]


def whole(pattern: re.Pattern[str]) -> str:
    """A pattern of `limits` as JSON Schema writes it."""
    return "^" + pattern.pattern.removesuffix(r"\Z") + "$"


_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
_SECONDS = Meta(gt=0, le=limits.MAX_POLICY_SECONDS, description="seconds, more than 0 and at most a day")

Org = Annotated[str, Meta(pattern=whole(limits.ORG), description="lower-case letters, digits and -, at most 39")]
Project = Annotated[str, Meta(pattern=whole(limits.PROJECT), description="letters, digits, dots, - and _, at most 100")]
User = Annotated[str, Meta(pattern=whole(limits.TOKEN), description="letters, digits, - and _, at most 64")]
Actor = Annotated[
    str, Meta(pattern="^[A-Za-z0-9_-]{0,64}$", description="a user name: letters, digits, - and _, at most 64")
]
Run = Annotated[str, Meta(pattern=whole(limits.RUN), description="the id of a run: 12 letters and digits")]
Pool = Annotated[str, Meta(pattern=whole(limits.POOL), description="lower-case letters, digits and -, at most 39")]
RequestId = Annotated[
    str,
    Meta(
        max_length=limits.MAX_ID_CHARS,
        pattern=_PRINTABLE,
        description="one line of text, the publisher's own name of this request",
    ),
]
Name = Annotated[
    str, Meta(min_length=1, max_length=limits.MAX_NAME_CHARS, pattern=_PRINTABLE, description="one line of text")
]
Image = Annotated[
    str, Meta(max_length=limits.MAX_IMAGE_CHARS, pattern=whole(limits.IMAGE), description="a container image")
]
Context = Annotated[
    str, Meta(pattern=whole(limits.CONTEXT), description="a context: letters, digits, - and _, at most 64")
]
Variable = Annotated[str, Meta(max_length=limits.MAX_ENV_VALUE_CHARS, pattern=r"^[^\x00]*$")]
VariableName = Annotated[str, Meta(min_length=1, max_length=limits.MAX_NAME_CHARS, pattern=r"^[^\x00-\x20=\x7f]*$")]
Seconds = Annotated[float, _SECONDS]


CheckoutOption = Literal[
    "ref", "path", "fetch-depth", "fetch-tags", "submodules", "lfs", "clean", "sparse-checkout",
    "sparse-checkout-cone-mode", "persist-credentials", "show-progress", "set-safe-directory",
]  # fmt: skip


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step, with the keys of a workflow file. Exactly one of `run` and `uses`."""

    run: Annotated[str, Meta(min_length=1)] = ""
    uses: Annotated[str, Meta(pattern=r"^actions/checkout@")] = ""
    with_: dict[CheckoutOption, str | int | bool] = msgspec.field(name="with", default={})
    name: Name = ""
    id: Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,99}$")] = ""
    env: Annotated[dict[str, str | int | float | bool | None], Meta(max_length=limits.MAX_ENV_VARS)] = {}
    working_directory: str = msgspec.field(name="working-directory", default="")
    shell: Annotated[str, Meta(max_length=limits.MAX_SHELL_CHARS, pattern=r"^(|bash|sh|python|pwsh|.*\{0\}.*)$")] = ""
    if_: str = msgspec.field(name="if", default="success()")
    continue_on_error: bool = msgspec.field(name="continue-on-error", default=False)
    timeout_minutes: Annotated[float, Meta(gt=0, le=limits.MAX_TIMEOUT_MINUTES)] | UnsetType = msgspec.field(
        name="timeout-minutes", default=UNSET
    )


class SourceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Where checkout takes the tree from. `git`: a URL without credentials, or an absolute path on the host."""

    git: Annotated[str, Meta(max_length=2000, pattern=_PRINTABLE, description="one line, at most 2000 characters")] = ""
    ref: Annotated[str, Meta(max_length=limits.MAX_REF_CHARS, pattern=_PRINTABLE, description="a branch or a tag")] = ""
    sha: Annotated[
        str, Meta(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})?$", description="a full commit id in lower-case hex")
    ] = ""
    patch: Annotated[
        str,
        Meta(max_length=limits.MAX_PATCH_CHARS, description="a change, at most 256 KiB as it is sent"),
    ] = ""
    """What checkout of `sha` applies: a diff as `git diff --binary HEAD` writes it."""
    patch_encoding: Literal["", "zlib"] = ""
    """zlib: `patch` is the base64 of the deflated diff."""


class SshRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Where to pause, who may enter and for how long. `step`: number from 1, id or name. `keys` count as the actor."""

    pause: PauseAt | list[PauseAt] = []
    step: Annotated[int, Meta(ge=1, le=limits.MAX_STEPS)] | Name | UnsetType = UNSET
    any_failure: bool = False
    """With a pause on_failure: also at steps that have `continue-on-error`."""
    direct: bool = False
    users: Annotated[list[User], Meta(max_length=limits.MAX_SSH_USERS)] = []
    keys: Annotated[
        list[Annotated[str, Meta(max_length=limits.MAX_KEY_CHARS)]], Meta(max_length=limits.MAX_SSH_KEYS)
    ] = []
    connect_window: Seconds = limits.CONNECT_WINDOW
    idle_timeout: Seconds = limits.IDLE_TIMEOUT
    max_duration: Seconds | UnsetType = UNSET
    """Left out: that of the org. More than the longest session of the org is no more than that."""
    on_expiry: OnExpiry = "cancel"


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `run.requested`. Smallest: org, project and one of steps, workflow and
    rerun_of. Unknown fields are ignored."""

    org: Org
    project: Project
    id: RequestId = ""
    actor: Actor = ""
    workflow: Annotated[str, Meta(min_length=1, max_length=limits.MAX_WORKFLOW_BYTES)] | UnsetType = UNSET
    jobs: Annotated[list[Name], Meta(max_length=limits.MAX_JOBS)] = []
    """Of the workflow: keys or names. Empty: all."""
    steps: Annotated[list[Step], Meta(min_length=1, max_length=limits.MAX_STEPS)] | UnsetType = UNSET
    image: Image = ""
    source: SourceRequest = SourceRequest()
    env: Annotated[dict[VariableName, Variable], Meta(max_length=limits.MAX_ENV_VARS)] = {}
    """Over the workflow's and the jobs' own variables, under those of steps."""
    pool: Pool = "default"
    """When it is given, every job runs there, whatever its `runs-on` says."""
    priority: Annotated[int, Meta(ge=-limits.MAX_PRIORITY, le=limits.MAX_PRIORITY)] = 0
    ssh: SshRequest = SshRequest()
    inputs: dict[str, Any] = {}
    """Not supported yet: only an empty one is accepted."""
    secrets: Annotated[list[Context], Meta(max_length=limits.MAX_RUN_CONTEXTS)] = []
    """Contexts whose secrets every job of the run gets, as variables. Of two of the same name the later one counts."""
    retry: Retry = ""
    """infrastructure: a job that nobody has entered, and whose host is lost or cannot make its sandbox, is tried once
    more."""
    rerun_of: Run | UnsetType = UNSET
    """Do this run again, with its inputs: in place of steps and workflow, and of all that describes them. `ssh` left
    out: its pauses, but not its users and keys; `{}`: none."""
    failed: bool = False
    """With rerun_of: only the jobs that did not succeed."""
