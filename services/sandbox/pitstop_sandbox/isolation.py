"""The settings of a host about what its jobs may reach and take: the faults in them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Protocol

NETWORKS: Final = ("nat", "none")
_WIDEST: Final = 8
_NARROWEST: Final = 30
_LEAST_MEMORY: Final = 16
"""The engine takes no container with less than 6 MiB; a shell needs more."""
_LEAST_PROCESSES: Final = 16


class _Isolation(Protocol):
    @property
    def docker_subnets(self) -> str: ...
    @property
    def sandbox_network(self) -> str: ...
    @property
    def sandbox_deny(self) -> Sequence[str]: ...
    @property
    def sandbox_allow(self) -> Sequence[str]: ...
    @property
    def sandbox_dns(self) -> Sequence[str]: ...
    @property
    def sandbox_cpus(self) -> float: ...
    @property
    def sandbox_memory_mib(self) -> int: ...
    @property
    def sandbox_processes(self) -> int: ...
    @property
    def sandbox_disk_mib(self) -> int: ...


def isolation_faults(config: _Isolation) -> Iterator[str]:
    """Each names the variable, and what it should be."""
    if config.sandbox_network not in NETWORKS:
        yield f"PITSTOP_SANDBOX_NETWORK={config.sandbox_network!r}: should be one of {', '.join(NETWORKS)}"
    subnets = _network(config.docker_subnets)
    if subnets is None or not _WIDEST <= subnets.prefixlen <= _NARROWEST:
        yield f"PITSTOP_DOCKER_SUBNETS={config.docker_subnets!r}: should be like 10.222.0.0/16, from /8 to /30"
    for name, networks in (("DENY", config.sandbox_deny), ("ALLOW", config.sandbox_allow)):
        yield from (f"PITSTOP_SANDBOX_{name}: {each!r} is no IPv4 network, like 10.1.0.0/16 or 10.1.2.3"
                    for each in networks if _network(each) is None)  # fmt: skip
    for each in config.sandbox_dns:
        try:
            IPv4Address(each)
        except ValueError:
            yield f"PITSTOP_SANDBOX_DNS: {each!r} is no IPv4 address"
    if config.sandbox_cpus <= 0 or config.sandbox_disk_mib <= 0:
        yield "PITSTOP_SANDBOX_CPUS and PITSTOP_SANDBOX_DISK_MIB should be above 0"
    if config.sandbox_memory_mib < _LEAST_MEMORY or config.sandbox_processes < _LEAST_PROCESSES:
        yield (f"PITSTOP_SANDBOX_MEMORY_MIB should be {_LEAST_MEMORY} or more, PITSTOP_SANDBOX_PROCESSES "
               f"{_LEAST_PROCESSES} or more")  # fmt: skip


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text)
    except ValueError:
        return None
