"""The keys by which clients know the relays: the one in use, those before and after it, and a certificate."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Final

import asyncssh
from asyncssh.public_key import CERT_TYPE_HOST

from pitstop_common import host_keys as files
from pitstop_common.errors import ConfigError

log = logging.getLogger(__name__)

_CA_KINDS: Final = frozenset({
    "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
})  # fmt: skip
_CERT_NAME: Final = "ssh-keygen -s CA_KEY -h -I relay -n {host} -V +52w {key}.pub"


class HostKeys:
    """`current` is shown in the key exchange, with `certificate` to clients that ask for one; `others` are announced
    and proved to those who are logged in, and stand in known_hosts."""

    def __init__(
        self, current: asyncssh.SSHKey, others: tuple[asyncssh.SSHKey, ...] = (), certificate: Any = None
    ) -> None:
        self.current = current
        self.others = others
        self.certificate = certificate

    def known_hosts(self, host: str, port: int) -> str:
        """The lines for the file of that name, the one of the key in use first."""
        lines = [files.line(host, port, _text(key)) for key in (self.current, *self.others)]
        if self.certificate is not None:
            lines.append(files.authority_line(host, port, _text(self.certificate.signing_key)))
        return "\n".join(lines)

    def check(self, host: str) -> None:
        """Whether clients will accept the certificate for this name. Raises ConfigError."""
        if self.certificate is None:
            return
        try:
            self.certificate.validate(CERT_TYPE_HOST, host)
        except ValueError as error:
            raise ConfigError(f"clients would refuse the host certificate for {host!r}: {error}. A new one:\n  "
                              + _CERT_NAME.format(host=host, key="HOST_KEY")) from None  # fmt: skip


def load(path: Path, certificate: Path = Path()) -> HostKeys:
    """The ed25519 key in `path`, made there (0600) when there is none, and what stands beside it. `certificate`: its
    file, when it is elsewhere. Raises ConfigError."""
    if not path.exists():
        _make(path)
    current = _key(path)
    others = tuple(_key(file) for file in (files.next_of(path), files.old_of(path)) if file.exists())
    named = certificate if certificate != Path() else files.certificate_of(path)
    if certificate == Path() and not named.exists():
        return HostKeys(current, others)
    return HostKeys(current, others, _certificate(named, path, current))


def _key(path: Path) -> asyncssh.SSHKey:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"the ssh host key {path} can be read by others; chmod 600 {path}")
        key = asyncssh.read_private_key(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"the ssh host key {path} cannot be used: {error}") from None
    if key.get_algorithm() != files.KIND:
        raise ConfigError(f"the ssh host key {path} is {key.get_algorithm()}; it must be {files.KIND}")
    return key


def _certificate(path: Path, key_path: Path, key: asyncssh.SSHKey) -> Any:
    try:
        certificate: Any = asyncssh.read_certificate(path)
    except (OSError, asyncssh.KeyImportError) as error:
        raise ConfigError(f"the host certificate {path} cannot be used: {error}") from None
    if getattr(certificate, "is_x509", True) or certificate.key.public_data != key.public_data:
        raise ConfigError(f"the host certificate {path} is not one of the key {key_path}. A new one:\n  "
                          + _CERT_NAME.format(host="HOST", key=key_path))  # fmt: skip
    if certificate.signing_key.get_algorithm() not in _CA_KINDS:
        raise ConfigError(f"the host certificate {path} is signed by a key of a kind that clients do not take")
    return certificate


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(asyncssh.generate_private_key(files.KIND, "pitstop").export_private_key())
    try:  # of several relays that start at once, the first one's key counts
        path.hardlink_to(mine)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def _text(key: asyncssh.SSHKey) -> str:
    return " ".join(key.export_public_key().decode().split()[:2])
