"""The private CA of the link between relay and sandbox host, and a certificate for each end."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pitstop_cli.paths import write_private

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_NAMES: Final = {"relay": "pitstop-relay", "host": "pitstop-host"}
_VALID: Final = datetime.timedelta(days=825)
_RENEW_AFTER: Final = 400 * 24 * 3600
"""Seconds. Well before the end, so that a system started once a year still has good certificates."""


def ensure(folder: Path) -> None:
    """Make `ca.pem`, `<end>.pem` and `<end>.key` for relay and host, unless they are there and young."""
    files = [folder / "ca.pem", *(folder / f"{end}.{kind}" for end in _NAMES for kind in ("pem", "key"))]
    if all(file.is_file() and time.time() - file.stat().st_mtime < _RENEW_AFTER for file in files):
        return
    _make(folder)


def _make(folder: Path) -> None:
    """A new CA and both ends. The CA's own key is not kept: nothing more is ever signed with it."""
    from cryptography.hazmat.primitives.asymmetric import ec

    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("pitstop-local-ca", ca_key, None, ca_key)
    for end, name in _NAMES.items():
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(folder / f"{end}.key", _key_pem(key))
        write_private(folder / f"{end}.pem", _pem(_certificate(name, key, ca, ca_key)))
    write_private(folder / "ca.pem", _pem(ca))


def _certificate(
    name: str, key: EllipticCurvePrivateKey, ca: x509.Certificate | None, ca_key: EllipticCurvePrivateKey
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=0 if ca is None else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .add_extension(_key_usage(ca is None), critical=True)
    )
    if ca is not None:
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _key_usage(ca: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
