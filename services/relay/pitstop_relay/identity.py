"""The relay's own identity: its SSH host key, and the TLS of its links."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import Final

import asyncssh

from pitstop_common.errors import ConfigError

HOST_NAME: Final = "pitstop-host"
"""The DNS name in the certificate of every sandbox host."""


def host_key(path: Path) -> asyncssh.SSHKey:
    """The ed25519 key in `path`, made there (0600) when there is none. Raises ConfigError."""
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"the ssh host key {path} can be read by others; chmod 600 {path}")
    try:
        key = asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"the ssh host key {path} cannot be used: {error}") from None
    if key.get_algorithm() != "ssh-ed25519":
        raise ConfigError(f"the ssh host key {path} is {key.get_algorithm()}; it must be ssh-ed25519")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(asyncssh.generate_private_key("ssh-ed25519", "pitstop").export_private_key())
    try:  # of several relays that start at once, the first one's key counts
        path.hardlink_to(mine)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def known_hosts(host: str, port: int, key: asyncssh.SSHKey) -> str:
    """A whole line for the file known_hosts."""
    public = " ".join(key.export_public_key().decode().split()[:2])
    return f"[{host}]:{port} {public}" if port != 22 else f"{host} {public}"


def link_tls(ca: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.3; both sides show a certificate of the private authority. Raises ConfigError."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the TLS files of the link ({ca}, {certificate}, {key}) cannot be used: {error}") from None
    return context


def is_host(certificate: object) -> bool:
    """Whether a verified peer certificate (as `SSLSocket.getpeercert` gives it) is a sandbox host's."""
    names = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return ("DNS", HOST_NAME) in names
