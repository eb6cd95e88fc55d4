"""Which run may have a context, and who may enter and change it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from pitstop_common.roles import Role
from pitstop_scheduler.keyring import Encrypted
from pitstop_scheduler.roles import Barred

RUNNERS_OWN: Final = ("GITHUB_", "RUNNER_", "PITSTOP_")
"""Variables that the runner sets itself: no secret may take their place."""


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A secret at rest. `time` (RFC 3339) and `by`: when it was set, and who did."""

    value: Encrypted
    lines: int
    time: str
    by: str


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """A named group of secrets. `members` None: everybody of the org; `projects` None: all of them. `publisher`: runs
    that a machine credential asks for may have it, too."""

    members: tuple[str, ...] | None = None
    projects: tuple[str, ...] | None = None
    publisher: bool = False
    time: str = ""
    by: str = ""
    secrets: dict[str, Secret] = {}

    def admits(self, user: str) -> bool:
        """Is somebody a member, or the context open to all of the org."""
        return self.members is None or user in self.members


def refusal(name: str, context: Context | None, *, actor: str, project: str, vouched: bool, admins: str) -> str:
    """Why a run may not have a context: the cause, who can change it (`admins`, in words), and the command; empty when
    it may. `vouched`: NATS says that the actor asks; else a machine credential only names them.
    """
    if context is None:
        return (f"there is no context {name!r}. Make it: `pitstop secrets set {name} NAME`, or see those there are: "
                "`pitstop secrets ls`")  # fmt: skip
    command = f"`pitstop secrets restrict {name}"
    if context.projects is not None and project not in context.projects:
        return (f"context {name} is closed to project {project}. {admins} can open it: "
                f"{command} --projects {_with(context.projects, project)}`")  # fmt: skip
    if not context.admits(actor):
        who = actor or "nobody (the request names no actor)"
        return (f"context {name} is closed: {who} is not a member. {admins} can change that: "
                f"{command} --members {_with(context.members or (), actor or 'USER')}`")  # fmt: skip
    if not vouched and not context.publisher:
        return (f"context {name} is not granted to machine credentials, and a machine asked for this run. {admins} can "
                f"grant it: {command} --publisher`; or ask as a person: `pitstop run --secrets {name}`")  # fmt: skip
    return ""


def outside(contexts: Mapping[str, Context | None], user: str, admins: str) -> Barred | None:
    """What keeps a person out of the sessions of a job with these contexts. One that is gone admits nobody: its members
    are not known any more."""
    for name, context in contexts.items():
        if context is None:
            return Barred("ssh_context", f"the job has secrets of the context {name}, which was removed since")
        if not context.admits(user):
            return Barred(
                "ssh_context",
                f"the job has secrets of the closed context {name}, and {user} is not a member. {admins} can change "
                f"that: `pitstop secrets restrict {name} --members {_with(context.members or (), user)}`",
            )
    return None


def closed_to(name: str, context: Context, caller: str, role: Role, admins: str) -> str:
    """Why somebody may not change a context; empty when they may: its members, and admins of the org."""
    if context.admits(caller) or role == "admin":
        return ""
    return (f"context {name} is closed, and {caller} is not a member. {admins} can change that: "
            f"`pitstop secrets restrict {name} --members {_with(context.members or (), caller)}`")  # fmt: skip


def bad_name(name: str) -> str:
    """Why no secret can have this name; empty when one can."""
    if name.upper().startswith(RUNNERS_OWN):
        return f"begins with {', '.join(RUNNERS_OWN)}: those variables are the runner's own"
    return ""


def _with(names: tuple[str, ...], more: str) -> str:
    return ",".join((*names, more))
