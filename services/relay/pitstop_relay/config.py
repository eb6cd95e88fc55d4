"""The relay's settings."""

from __future__ import annotations

from pathlib import Path

from pitstop_common.config import ServiceConfig


class RelayConfig(ServiceConfig, frozen=True, kw_only=True):
    """The variable of a field is `PITSTOP_` and its name in capitals."""

    ssh_listen: str = "127.0.0.1:2222"
    """Where people's ssh connects; port 0 takes a free one."""
    ssh_public: str = ""
    """host:port as people type it, when it differs (a load balancer, a name)."""
    link_listen: str = "127.0.0.1:0"
    """Where sandbox hosts dial this worker. Each worker has its own."""
    link_public: str = ""
    """host:port as the hosts reach it, when it differs."""
    ssh_reuse_port: bool = False
    """Several workers share the port of `ssh_listen` (SO_REUSEPORT)."""
    ssh_host_key: Path = Path()
    """The ed25519 host key, the same on every relay; made in PITSTOP_DIR when this is not set and there is none. The
    next key and the last one may stand beside it (FILE.next, FILE.old), and certificates (FILE-cert.pub)."""
    ssh_host_cert: Path = Path()
    """Its host certificate, when it is elsewhere than beside the key."""
    tls_ca: Path
    """The private authority of the links."""
    tls_cert: Path
    """This relay's certificate, with the DNS name `pitstop-relay`."""
    tls_key: Path
    ssh_login_grace: float = 60.0
    """From the first byte to a good login, seconds: people type a passphrase, or touch a key, in it."""
    ssh_max_connections: int = 2000
    """At once, logged in or not."""
    ssh_max_logins: int = 200
    """Not logged in yet, at once."""
    ssh_max_logins_per_address: int = 20
    """Not logged in yet, at once, from one address."""
    relay_workers: int = 1
    """Processes that share the port of `ssh_listen`, each with a link port of its own."""
    drain_timeout: float = 0.0
    """When told to stop: so long people may go on before they are disconnected, seconds. A second SIGTERM ends it."""
    ssh_max_tries: int = 20
    """Keys that one connection may try: an agent offers many."""

    @property
    def stops_within(self) -> float:
        """From SIGTERM to the end at the latest, seconds."""
        return super().stops_within + self.drain_timeout
