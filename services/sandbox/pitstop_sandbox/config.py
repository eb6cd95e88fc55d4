"""Settings of a sandbox host, and what it keeps on disk about itself: its id, and the lock of its folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pitstop_common.config import ServiceConfig, address
from pitstop_common.errors import ConfigError
from pitstop_common.limits import HEARTBEAT_INTERVAL, LABEL, MAX_LABELS, ORPHAN_GRACE, POOL
from pitstop_common.messages import SshAddress
from pitstop_sandbox.backends.docker import stock
from pitstop_sandbox.isolation import isolation_faults
from pitstop_sandbox.source.wish import CheckoutLimits

BACKENDS: Final = ("auto", "namespaces", "docker", "fake")
AT_STOP: Final = ("leave", "end")
MAX_CAPACITY: Final = 10_000
_MACHINES: Final = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64"}
"""As GitHub calls them."""

_HOST: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_UIDS: Final = re.compile(r"(\d{1,10})-(\d{1,10})\Z")


class SandboxConfig(ServiceConfig, frozen=True, kw_only=True):
    """What a sandbox host needs beside what every service does. Times in seconds."""

    host_id: str = ""
    """Letters a-z, digits, `-`. Empty: a random one, kept in PITSTOP_DIR/host-id."""
    pool: str = "default"
    labels: tuple[str, ...] = ()
    """What `runs-on` may ask for, separated by commas; beside those that every host has: linux, self-hosted, and its
    architecture (x64, arm64). The hosts of a pool have the same."""
    capacity: int = 4
    """Jobs at once."""
    sandbox: str = "auto"
    """auto, namespaces, docker, or fake (plain processes without a wall: for tests only)."""
    docker_host: str = ""
    """unix:///… of a Docker Engine on this machine. Empty: DOCKER_HOST, else unix:///var/run/docker.sock."""
    docker_image: str = ""
    """Of jobs that name none. Empty: the one that `make images` builds, when it is there."""
    docker_images_mib: int = 20480
    """Of images that this host has fetched itself, as much is kept; the least used go first, those in use never."""
    docker_warm: tuple[str, ...] = ("1",)
    """Containers that are kept started for jobs to come: N of the default image, or IMAGE=N, separated by commas."""
    docker_warm_age: float = stock.AGE
    """One that no job has taken for so long is replaced by a new one."""
    docker_warm_rate: float = stock.PER_MINUTE
    """So many are made in a minute at most; none while a job starts."""
    docker_runtime: str = ""
    """As the engine calls it; it has to be runc. Empty: the engine's default."""
    docker_subnets: str = "10.222.0.0/16"
    """Networks for jobs are taken from here, two addresses each; what this machine has a route to is left out."""
    sandbox_network: str = "nat"
    """nat: containers reach the outside, and nothing that is closed. none: nothing."""
    sandbox_deny: tuple[str, ...] = ()
    """More networks that jobs do not reach, separated by commas."""
    sandbox_allow: tuple[str, ...] = ()
    """Private networks that jobs do reach."""
    sandbox_dns: tuple[str, ...] = ()
    """Addresses of name servers for jobs. Empty: those of this machine."""
    sandbox_cpus: float = 2
    sandbox_memory_mib: int = 4096
    sandbox_processes: int = 1024
    sandbox_disk_mib: int = 10240
    """What one container may take. Namespaces: of these, the processes."""
    sandbox_uids: str = "210000-210999"
    """As root: the range of host uids, one for each sandbox."""
    sandbox_paths: tuple[str, ...] = ()
    """More folders of this host that sandboxes may read, separated by commas."""
    local_sources: bool = False
    """May a run take its source from a git repository on this host's disk."""
    source_seconds: float = 900
    """A checkout that takes longer fails."""
    source_mib: int = 4096
    """A repository, or a tree, that is larger is refused."""
    source_cache_mib: int = 10240
    """Of repositories fetched before, as much is kept; 0: nothing."""
    source_ca: str = ""
    """A file of certificates for https; empty: those of the system."""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    """Files for the links to relays. All three, or none: then nobody can enter."""
    ready_shell: bool = True
    """Keep a shell ready at each pause: whoever comes finds a prompt at once. Takes 0.5 MB of its own."""
    jobs_at_stop: str = "leave"
    """leave: running jobs go on, and the next process takes them up. end: they end with the service."""
    ssh_public: str = ""
    """host:port that people type; empty: unknown."""
    ssh_known_hosts: str = ""
    """The relays' line for known_hosts, or a file that holds it."""
    heartbeat_interval: float = HEARTBEAT_INTERVAL
    orphan_grace: float = ORPHAN_GRACE
    """Without NATS for this long, the host ends its jobs: others are about to be told that it is lost."""

    def __post_init__(self) -> None:
        """Raises ConfigError that names every fault."""
        if faults := list(_faults(self)):
            raise ConfigError("wrong settings:\n  " + "\n  ".join(faults))

    @property
    def all_labels(self) -> tuple[str, ...]:
        """What this host is, each once, in order."""
        machine = platform.machine().lower()
        return tuple(sorted({"linux", "self-hosted", _MACHINES.get(machine, machine), *self.labels}))

    @property
    def warm(self) -> stock.Wanted:
        """The containers that are kept ready."""
        return stock.Wanted(
            images=stock.parse(self.docker_warm), age=self.docker_warm_age, per_minute=self.docker_warm_rate
        )

    @property
    def checkout(self) -> CheckoutLimits:
        """What a checkout may do and take."""
        return CheckoutLimits(
            local=self.local_sources, seconds=self.source_seconds, size=self.source_mib * 2**20, ca=self.source_ca,
            cache=self.dir / "sources" if self.source_cache_mib else None, cache_size=self.source_cache_mib * 2**20,
        )  # fmt: skip

    @property
    def uids(self) -> range:
        """The host uids for sandboxes."""
        first, last = map(int, self.sandbox_uids.split("-"))
        return range(first, last + 1)


def _faults(config: SandboxConfig) -> Iterator[str]:
    if config.host_id and not _HOST.match(config.host_id):
        yield f"PITSTOP_HOST_ID={config.host_id!r}: should be a-z, 0-9 and -, at most 63"
    if not POOL.match(config.pool):
        yield f"PITSTOP_POOL={config.pool!r}: should be a-z, 0-9 and -, at most 39"
    yield from (f"PITSTOP_LABELS: {label!r} is not a label: a-z, 0-9 and . _ : / = + @ -, at most 100 characters"
                for label in config.labels if not LABEL.match(label))  # fmt: skip
    if len(config.labels) > MAX_LABELS:
        yield f"PITSTOP_LABELS has {len(config.labels)} labels: at most {MAX_LABELS} are accepted"
    if not 1 <= config.capacity <= MAX_CAPACITY:
        yield f"PITSTOP_CAPACITY={config.capacity}: should be 1 to {MAX_CAPACITY}"
    if config.sandbox not in BACKENDS:
        yield f"PITSTOP_SANDBOX={config.sandbox!r}: should be one of {', '.join(BACKENDS)}"
    if config.source_seconds <= 0 or config.source_mib <= 0 or config.source_cache_mib < 0:
        yield "PITSTOP_SOURCE_SECONDS and PITSTOP_SOURCE_MIB should be above 0, PITSTOP_SOURCE_CACHE_MIB 0 or more"
    yield from _docker_faults(config)
    if config.jobs_at_stop not in AT_STOP:
        yield f"PITSTOP_JOBS_AT_STOP={config.jobs_at_stop!r}: should be one of {', '.join(AT_STOP)}"
    yield from isolation_faults(config)
    uids = _UIDS.match(config.sandbox_uids)
    if uids is None or not 1000 <= int(uids[1]) <= int(uids[2]) < 2**32 - 2:
        yield f"PITSTOP_SANDBOX_UIDS={config.sandbox_uids!r}: should be like 210000-210999, from 1000 up"
    yield from (f"PITSTOP_SANDBOX_PATHS: {path!r} is not an absolute path" for path in config.sandbox_paths
                if not path.startswith("/"))  # fmt: skip
    if len({bool(config.tls_ca), bool(config.tls_cert), bool(config.tls_key)}) > 1:
        yield "PITSTOP_TLS_CA, PITSTOP_TLS_CERT and PITSTOP_TLS_KEY belong together: set all three"
    if config.ssh_public:
        with contextlib.suppress(ValueError):
            address(config.ssh_public)
            return
        yield f"PITSTOP_SSH_PUBLIC={config.ssh_public!r}: should be host:port"


def _docker_faults(config: SandboxConfig) -> Iterator[str]:
    if config.docker_images_mib < 0:
        yield f"PITSTOP_DOCKER_IMAGES_MIB={config.docker_images_mib}: should be 0 or more"
    try:
        stock.parse(config.docker_warm)
    except ValueError as error:
        yield f"PITSTOP_DOCKER_WARM: {error}"
    if config.docker_warm_age <= 0 or config.docker_warm_rate <= 0:
        yield "PITSTOP_DOCKER_WARM_AGE (seconds) and PITSTOP_DOCKER_WARM_RATE (in a minute) should be above 0"


def next_incarnation(folder: Path) -> str:
    """The name of this process of the host. Counted up on disk, so that a later one sorts after an earlier one
    whatever the clock does; with some chance in it, for a host whose folder was lost. The count begins at the seconds
    since the epoch: a host of the same id with a new folder must sort after the one before it, or the log would take
    its word for an old one."""
    kept = folder / "incarnations"
    try:
        count = int(kept.read_text()) + 1
    except (FileNotFoundError, ValueError):  # a new folder; or torn by a power cut
        count = int(time.time())
    fresh = kept.with_suffix(".new")
    fresh.write_text(f"{count}\n")
    fresh.replace(kept)
    return f"{count:010d}-{secrets.token_hex(3)}"


def host_id(config: SandboxConfig) -> str:
    """This host's id: the one that is set, else the one kept on disk, else a new one."""
    if config.host_id:
        return config.host_id
    kept = config.dir / "host-id"
    with contextlib.suppress(FileNotFoundError):
        found = kept.read_text().strip()
        if _HOST.match(found):
            return found
    made = f"host-{secrets.token_hex(4)}"
    temporary = kept.with_suffix(".tmp")
    temporary.write_text(made + "\n")
    temporary.rename(kept)
    return made


def ssh_address(config: SandboxConfig, job: str) -> SshAddress | None:
    """What people type to enter a job; None when no relay is known."""
    if not config.ssh_public:
        return None
    host, port = address(config.ssh_public)
    where = f"{job}@{host}"
    command = f"ssh {where}" if port == 22 else f"ssh -p {port} {where}"
    return SshAddress(host=host, port=port, user=job, command=command, known_hosts=_known_hosts(config))


def _known_hosts(config: SandboxConfig) -> str:
    if config.ssh_known_hosts.startswith("/"):
        try:
            return Path(config.ssh_known_hosts).read_text().strip()
        except OSError:
            return ""
    return config.ssh_known_hosts


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which ends with the process. Raises ConfigError when another process has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another sandbox host uses the folder {folder}: stop it, or give this one its own PITSTOP_DIR"
            ) from None
        yield
    finally:
        os.close(lock)
