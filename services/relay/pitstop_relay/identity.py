"""Who the relay is to sandbox hosts, and they to it: the TLS of the links."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from pitstop_common.errors import ConfigError

HOST_NAME: Final = "pitstop-host"
"""The DNS name in the certificate of every sandbox host."""


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
