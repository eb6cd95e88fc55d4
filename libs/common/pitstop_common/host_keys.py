"""The relays' ssh host key as files, and the lines of known_hosts that name it. One key is in use on all relays; beside
its file may stand the next one and the last one, and for each a certificate, named as OpenSSH names it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

KEY_FILE: Final = "ssh_host_ed25519_key"
KIND: Final = "ssh-ed25519"
_DEFAULT_PORT: Final = 22


def next_of(key: Path) -> Path:
    """The key that will be in use: relays hand its line out already."""
    return key.with_name(f"{key.name}.next")


def old_of(key: Path) -> Path:
    """The key that was in use: relays that are not restarted yet still show it."""
    return key.with_name(f"{key.name}.old")


def certificate_of(key: Path) -> Path:
    """What `ssh-keygen -s CA -h` writes beside a key."""
    return key.with_name(f"{key.name}-cert.pub")


def public_of(key: Path) -> Path:
    """The public half beside a key."""
    return key.with_name(f"{key.name}.pub")


def place(host: str, port: int) -> str:
    """How known_hosts names an address."""
    return host if port == _DEFAULT_PORT else f"[{host}]:{port}"


def line(host: str, port: int, key: str) -> str:
    """For a key `<type> <base64>`."""
    return f"{place(host, port)} {key}"


def authority_line(host: str, port: int, authority: str) -> str:
    """For the public key `<type> <base64>` of an authority: whatever key it signed is the host's."""
    return f"@cert-authority {place(host, port)} {authority}"
