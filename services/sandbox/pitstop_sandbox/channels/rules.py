"""What a project lets its people do over ssh, and what they read when it does not. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pitstop_common.roles import Services

Service = Literal["terminal", "exec", "sftp", "forwarding", "agent"]

_NAMES: Final[dict[Service, str]] = {
    "terminal": "a terminal (ssh without a command)",
    "exec": "running commands (ssh JOB COMMAND, scp -O, rsync, git, VS Code)",
    "sftp": "sftp, and scp, which uses it",
    "forwarding": "forwarding (-L, -R, -D, -W and unix sockets)",
    "agent": "agent forwarding (-A)",
}


class Rules(msgspec.Struct, frozen=True):
    """The switches of one project."""

    project: str = ""
    services: Services = Services()

    def fault(self, service: Service) -> str:
        """Why a service is not given; empty when it is."""
        if getattr(self.services, service):
            return ""
        return (
            f"{_NAMES[service]} is switched off for the project {self.project}. Its admins switch it on with "
            f"`{service} = true` in [projects.{self.project}] of the org's file, and `pitstop apply`"
        )
