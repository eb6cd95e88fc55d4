"""Settings from the environment: one frozen struct per service, read once, all faults reported together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from pitstop_common.errors import ConfigError
from pitstop_common.limits import STOP_DEADLINE

T = TypeVar("T", bound="ServiceConfig")

_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


class ServiceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs. The variable of a field is `PITSTOP_` and its name in capitals."""

    nats_url: str
    """nats://user:password@host:port; the servers of a cluster with commas between them, the credentials with each."""
    http: str = "127.0.0.1:0"
    """Where /livez, /readyz and /metrics are served; port 0 takes a free one."""
    dir: Path = Path()
    """The service's own folder for what it keeps on disk."""
    ready_file: str = ""
    """A file that gets one line of JSON when the service is ready (for `pitstop up`)."""
    replicas: int = 1
    """Copies of each stream when this service is the first to make them (3 in a cluster)."""
    partitions: int = 1
    """Decision logs. A constant of the deployment."""
    log_level: str = "info"

    @property
    def stops_within(self) -> float:
        """From SIGTERM to the end at the latest, seconds."""
        return STOP_DEADLINE


def load(config: type[T], environ: Mapping[str, str]) -> T:
    """The settings in an environment. Raises ConfigError that names every wrong variable and what it should be."""
    faults: list[str] = []
    values: dict[str, Any] = {}
    hints = get_type_hints(config)
    for field in msgspec.structs.fields(config):
        variable = "PITSTOP_" + field.name.upper()
        raw = environ.get(variable)
        if raw is None or raw == "":
            if field.required:
                faults.append(f"{variable} is not set")
            continue
        try:
            values[field.name] = _convert(raw, hints[field.name])
        except ValueError as error:
            faults.append(f"{variable}={raw!r}: {error}")
    if faults:
        raise ConfigError("wrong settings:\n  " + "\n  ".join(faults))
    return config(**values)


def address(text: str) -> tuple[str, int]:
    """`host:port`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]") or "127.0.0.1", int(port)


def _convert(raw: str, wanted: object) -> object:
    if wanted is bool:
        if raw.lower() not in _TRUE | _FALSE:
            raise ValueError("should be true or false")
        return raw.lower() in _TRUE
    if wanted is int or wanted is float:
        try:
            return wanted(raw)
        except ValueError:
            raise ValueError(f"should be {'a whole number' if wanted is int else 'a number'}") from None
    if wanted is Path:
        return Path(raw)
    if wanted == tuple[str, ...]:
        return tuple(part for part in raw.split(",") if part)
    return raw
