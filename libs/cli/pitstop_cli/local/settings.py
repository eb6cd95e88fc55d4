"""What `pitstop up` was asked for, and the environment it gives each service: nothing of its own but what is listed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from pitstop_cli.local.credentials import SECRETS_KEY
from pitstop_cli.paths import owner_name

_PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PITSTOP_LOG_LEVEL")
_SANDBOXES: Final = ("DOCKER_HOST", "PITSTOP_DOCKER_", "PITSTOP_SANDBOX_")
_LIMITS: Final = ("PITSTOP_IDLE_", "PITSTOP_HOST_LOST_AFTER", "PITSTOP_SCAN_INTERVAL", "PITSTOP_HEARTBEAT_INTERVAL")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of `pitstop up`. Ports None: any."""

    dir: Path
    nats_port: int | None = None
    ssh_port: int | None = None
    slots: int = 4
    """Jobs at once on this host."""
    org_slots: int = 0
    """Jobs at once of one org; 0: as many as `slots`."""
    sandbox: str = "auto"
    org: str = "local"
    owner: str = msgspec.field(default_factory=owner_name)
    """Whose system it is: an admin of every org, with no login."""


def environment(
    service: str, options: Options, *, nats_url: str, ssh_port: int, http_port: int, ready_file: Path,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:  # fmt: skip
    """The whole environment of a service. The credentials in it are those of this service alone."""
    env = {name: environ[name] for name in _PASSED_ON if name in environ}
    env |= {name: value for name, value in environ.items() if name.startswith(_LIMITS)}
    env |= {
        "PITSTOP_NATS_URL": nats_url,
        "PITSTOP_HTTP": f"127.0.0.1:{http_port}",
        "PITSTOP_DIR": str(options.dir / service),
        "PITSTOP_READY_FILE": str(ready_file),
    }
    if service == "sandbox":
        env |= {name: value for name, value in environ.items() if name.startswith(_SANDBOXES)}
    return env | _own(service, options, ssh_port)


def _own(service: str, options: Options, ssh_port: int) -> dict[str, str]:
    tls = options.dir / "tls"
    if service == "scheduler":
        return {
            "PITSTOP_ORG_SLOTS": str(options.org_slots or options.slots),
            "PITSTOP_ADMINS": f"*/{options.owner}",
            "PITSTOP_CALLOUT_KEY": str(options.dir / "callout.key"),
            "PITSTOP_SECRETS_KEY_FILE": str(options.dir / SECRETS_KEY),
        }
    if service == "relay":
        return {
            "PITSTOP_SSH_LISTEN": f"127.0.0.1:{ssh_port}",
            "PITSTOP_TLS_CA": str(tls / "ca.pem"),
            "PITSTOP_TLS_CERT": str(tls / "relay.pem"),
            "PITSTOP_TLS_KEY": str(tls / "relay.key"),
        }
    if service == "sandbox":
        return {
            "PITSTOP_CAPACITY": str(options.slots),
            "PITSTOP_SANDBOX": options.sandbox,
            "PITSTOP_LOCAL_SOURCES": "true",
            "PITSTOP_JOBS_AT_STOP": "end",
            "PITSTOP_SSH_PUBLIC": f"127.0.0.1:{ssh_port}",
            "PITSTOP_SSH_KNOWN_HOSTS": str(options.dir / "known_hosts"),
            "PITSTOP_TLS_CA": str(tls / "ca.pem"),
            "PITSTOP_TLS_CERT": str(tls / "host.pem"),
            "PITSTOP_TLS_KEY": str(tls / "host.key"),
        }
    return {}
