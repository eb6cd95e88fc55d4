"""Settings of the scheduler, from the environment."""

from __future__ import annotations

from pitstop_common.config import ServiceConfig
from pitstop_common.errors import ConfigError
from pitstop_scheduler.pool_labels import read_aliases


class Config(ServiceConfig, frozen=True, kw_only=True):
    """Limits are slots at once; 0 = none. An org that was configured by itself keeps its own."""

    org_slots: int = 0
    """Jobs of one org at once."""
    project_slots: int = 0
    """Jobs of one project at once."""
    pool_slots: int = 0
    """Jobs of one pool at once (its hosts' capacity bounds it anyway)."""
    label_pools: tuple[str, ...] = ("ubuntu-*=default", "depot-ubuntu-*=default")
    """Names of other systems' runners in `runs-on`, and the pool that each means here."""
    ssh_disabled: tuple[str, ...] = ()
    """Projects that offer no session, as `org/project`; `org/*` for all of an org."""
    admins: tuple[str, ...] = ()
    """People who are admins whatever the orgs say, as `org/user`; `*/user` in every org."""
    secrets_key_file: str = ""
    """The keys that secrets are encrypted with at rest (see `keyring`). Empty: secrets cannot be used."""
    keys_hosts: tuple[str, ...] = ()
    """Servers of public keys (`keys_url` of orgs) in private networks, by name. Others must have public addresses."""
    callout_key: str = ""
    """File with the seed of the account key that signs people's rights; empty: people cannot log in."""
    snapshot_every: int = 2000
    """Records of the decision log between two snapshots."""

    def __post_init__(self) -> None:
        """Raises ConfigError."""
        try:
            read_aliases(self.label_pools)
        except ValueError as error:
            raise ConfigError(f"wrong settings:\n  PITSTOP_LABEL_POOLS: {error}") from None
