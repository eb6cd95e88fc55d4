"""Roles of people in an org, and what projects allow. What each verb of the API needs stands beside it in `api.VERBS`.

none < read < write < admin. read: see runs, logs, audits. write: start, cancel one's own, enter, keep a session, keys
of one's own. admin: the org's file, tokens of others, dead letters, runs of others.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from pitstop_common.limits import MAX_PEOPLE, MAX_PROJECTS, PROJECT, TOKEN

Role = Literal["none", "read", "write", "admin"]
ROLES: Final[tuple[Role, ...]] = ("none", "read", "write", "admin")
EVERYBODY: Final = "*"
"""Stands for everybody who is not named."""

Member = Annotated[
    str,
    Meta(
        pattern=rf"^(\*|{TOKEN.pattern.removesuffix(chr(92) + 'Z')})$",
        description='a user name (letters, digits, - and _, at most 64), or "*" for everybody else',
    ),
]
Roles = Annotated[dict[Member, Role], Meta(max_length=MAX_PEOPLE)]


class Services(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a project gives to those who enter: shells on a terminal, commands (scp -O, rsync, git and VS Code are
    that), sftp and with it scp, forwards of ports and sockets, their agent."""

    terminal: bool = True
    exec: bool = True
    sftp: bool = True
    forwarding: bool = True
    agent: bool = True


SERVICES: Final = Services.__struct_fields__


class ProjectRules(Services, frozen=True, kw_only=True, omit_defaults=True):
    """What a project says for itself. `ssh` false: no session at all. `ssh_role`: what it takes to enter.
    `recording`: what terminals show is kept."""

    ssh: bool = True
    ssh_role: Literal["write", "admin"] = "write"
    recording: bool = False
    roles: Roles = {}


Rules = Annotated[
    dict[Annotated[str, Meta(pattern=f"^{PROJECT.pattern.removesuffix(chr(92) + 'Z')}$")], ProjectRules],
    Meta(max_length=MAX_PROJECTS),
]


def at_least(role: Role, needed: Role) -> bool:
    """Is `role` enough."""
    return ROLES.index(role) >= ROLES.index(needed)
