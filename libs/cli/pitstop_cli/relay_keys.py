"""The files of the relays' host key: read, made and changed round with ssh-keygen. No step leaves a relay without a
key, and what was cut short can be done again."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from pitstop_cli.exits import USAGE, Failure
from pitstop_common import host_keys as files


class Shown(NamedTuple):
    """A key: `state` current, next or old; `key` `<type> <base64>`; `certificate`: what ssh-keygen says of it."""

    state: str
    file: Path
    key: str
    fingerprint: str
    authority: str
    certificate: str


def all_of(key: Path) -> list[Shown]:
    """The key in use first. Raises Failure where there is none."""
    if not key.exists():
        raise Failure(
            f"there is no host key {key}",
            next="name it: --file (PITSTOP_SSH_HOST_KEY of the relays); a relay makes one when it starts without",
            code=USAGE,
        )
    found = [("current", key), ("next", files.next_of(key)), ("old", files.old_of(key))]
    return [_shown(state, file) for state, file in found if file.exists()]


def make_next(key: Path) -> Path:
    """A new key beside the one in use. Raises Failure when there is one already."""
    target = files.next_of(key)
    if target.exists():
        raise Failure(f"there is a next key already: {target}",
                      next="pitstop relay-key switch, when all relays have it; or remove it", code=USAGE)  # fmt: skip
    if files.old_of(key).exists():
        raise Failure(f"the last change is not over: {files.old_of(key)} is still there",
                      next="pitstop relay-key retire, when all relays show the new one", code=USAGE)  # fmt: skip
    for left in _trio(target):
        left.unlink(missing_ok=True)
    _keygen("-q", "-t", "ed25519", "-N", "", "-C", "pitstop", "-f", str(target))
    return target


def switch(key: Path) -> None:
    """The next key is in use from now on, and the one so far is the old one. Raises Failure."""
    upcoming, old = files.next_of(key), files.old_of(key)
    if not upcoming.exists():
        raise Failure("there is no next key", next="pitstop relay-key next, days before, on every relay", code=USAGE)
    for file in _trio(old):
        file.unlink(missing_ok=True)
    for file, kept in zip(_trio(key), _trio(old), strict=True):
        if file.exists():
            os.link(file, kept)
    for file, new in ((files.public_of(key), files.public_of(upcoming)),
                      (files.certificate_of(key), files.certificate_of(upcoming))):  # fmt: skip
        file.unlink(missing_ok=True)
        if new.exists():
            os.link(new, file)
    upcoming.replace(key)  # until here it can all be done again
    for file in _trio(upcoming):
        file.unlink(missing_ok=True)


def retire(key: Path) -> bool:
    """The old key is known no more. False: there was none."""
    there = [file for file in _trio(files.old_of(key)) if file.exists()]
    for file in there:
        file.unlink()
    return bool(there)


def known_hosts(shown: list[Shown], host: str, port: int) -> list[str]:
    """As the relays hand them out."""
    lines = [files.line(host, port, one.key) for one in shown]
    authorities = {one.authority for one in shown if one.state == "current" and one.authority}
    return lines + [files.authority_line(host, port, authority) for authority in sorted(authorities)]


def _trio(key: Path) -> tuple[Path, Path, Path]:
    return key, files.public_of(key), files.certificate_of(key)


def _shown(state: str, file: Path) -> Shown:
    key = " ".join(_keygen("-y", "-f", str(file)).split()[:2])
    certificate = files.certificate_of(file)
    said = _keygen("-L", "-f", str(certificate)) if certificate.exists() else ""
    return Shown(state, file, key, _fingerprint(key), _authority(certificate) if said else "", _valid(said))


def _fingerprint(key: str) -> str:
    from pitstop_common.public_keys import parse_public_key

    return parse_public_key(key).fingerprint


def _valid(said: str) -> str:
    found = re.search(r"^\s*Valid: (.*)$", said, re.M)
    return found[1] if found else ""


def _authority(certificate: Path) -> str:
    """The public key that signed a certificate: `<type> <base64>`."""
    from cryptography.hazmat.primitives import serialization

    try:
        loaded = serialization.load_ssh_public_identity(certificate.read_bytes())
    except ValueError as error:
        raise Failure(f"the host certificate {certificate} cannot be read: {error}") from None
    if not isinstance(loaded, serialization.SSHCertificate):
        raise Failure(f"{certificate} is no certificate")
    signer = loaded.signature_key()
    return signer.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _keygen(*words: str) -> str:
    try:
        done = subprocess.run(["ssh-keygen", *words], capture_output=True, text=True, check=False,
                              stdin=subprocess.DEVNULL)  # fmt: skip
    except FileNotFoundError:
        raise Failure("there is no ssh-keygen here", next="apt install openssh-client") from None
    if done.returncode:
        raise Failure(f"ssh-keygen {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
