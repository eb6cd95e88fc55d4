"""One NATS user per service, one for the owner, one for publishers, and the key that signs the rights of people who
log in. Made once, kept, reused."""

from __future__ import annotations

import base64
import json
import secrets
from pathlib import Path

from pitstop_cli.paths import write_private
from pitstop_common.embedded import Account
from pitstop_common.permissions import OWNER, PUBLISHER, SERVICES, rights

SECRETS_KEY = "secrets.key"
_USERS = (*SERVICES, OWNER, PUBLISHER)


def accounts(folder: Path, org: str) -> list[Account]:
    """The users of the server with their rights; passwords are in `folder`/credentials.json (0600)."""
    passwords = _passwords(folder / "credentials.json")
    made = []
    for user in _USERS:
        allowed = rights(user, org)
        made.append(Account(user=user, password=passwords[user], publish=allowed.publish, subscribe=allowed.subscribe))
    return made


def secrets_key() -> str:
    """A new line of the schedulers' key file: `<id> <32 random bytes in base64>`."""
    return f"k-{secrets.token_hex(4)} {base64.b64encode(secrets.token_bytes(32)).decode()}"


def ensure_secrets_key(folder: Path) -> None:
    """Make `folder`/secrets.key (0600) unless it is there. Who loses it loses the secrets."""
    if not (folder / SECRETS_KEY).exists():
        write_private(folder / SECRETS_KEY, secrets_key() + "\n")


def _passwords(path: Path) -> dict[str, str]:
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        kept = {}
    passwords = {user: str(kept.get(user) or secrets.token_urlsafe(24)) for user in _USERS}
    if passwords != kept:
        write_private(path, json.dumps(passwords, indent=1) + "\n")
    return passwords
