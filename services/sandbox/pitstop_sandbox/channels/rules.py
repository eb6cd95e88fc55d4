"""What a project lets its people do over ssh, and what they read when it does not. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pitstop_common.certificates import Bounds
from pitstop_common.roles import Services

Service = Literal["terminal", "exec", "sftp", "forwarding", "agent"]

_NAMES: Final[dict[Service, str]] = {
    "terminal": "a terminal (ssh without a command)",
    "exec": "running commands (ssh JOB COMMAND, scp -O, rsync, git, VS Code)",
    "sftp": "sftp, and scp, which uses it",
    "forwarding": "forwarding (-L, -R, -D, -W and unix sockets)",
    "agent": "agent forwarding (-A)",
}


_PERMITS: Final[dict[Service, tuple[str, str]]] = {
    "forwarding": ("forwarding", "permit-port-forwarding"), "agent": ("agent", "permit-agent-forwarding"),
}  # fmt: skip
"""The bound of a login that a service falls under, and what its certificate would say."""


class Rules(msgspec.Struct, frozen=True):
    """The switches of one project, and the bounds of one login. `recording`: terminals are recorded."""

    project: str = ""
    services: Services = Services()
    bounds: Bounds = Bounds()
    recording: bool = False

    def fault(self, service: Service) -> str:
        """Why a service is not given; empty when it is."""
        bound, permit = _PERMITS.get(service, ("", ""))
        if bound and not getattr(self.bounds, bound):
            return (
                f"your certificate does not allow {_NAMES[service]}: it has no {permit}. Ask who signs it for another"
            )
        if getattr(self.services, service):
            return ""
        return (
            f"{_NAMES[service]} is switched off for the project {self.project}. Its admins switch it on with "
            f"`{service} = true` in [projects.{self.project}] of the org's file, and `pitstop apply`"
        )
