"""Public keys: what ssh-keygen makes is taken, what is damaged is refused, and no error repeats a key."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.public_keys import BadKey, parse_public_key


def line(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def strings(*parts: bytes) -> str:
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


ED25519 = line(ed25519.Ed25519PrivateKey.generate())
RSA_1024 = "ssh-rsa " + strings(b"ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128)
SK_ED25519 = "sk-ssh-ed25519@openssh.com " + strings(b"sk-ssh-ed25519@openssh.com", b"k" * 32, b"ssh:")
POINT = ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com " + strings(
    b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:"
)


@pytest.mark.parametrize(
    "text",
    [
        ED25519, SK_ED25519, SK_ECDSA, line(rsa.generate_private_key(65537, 2048)),
        *(line(ec.generate_private_key(curve())) for curve in (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)),
    ],
    ids=lambda text: text.split()[0],
)  # fmt: skip
def test_good_keys(text: str, tmp_path: Path) -> None:
    key = parse_public_key(f"  {text}  ada@home of mine\n")
    assert (key.line, key.comment) == (text, "ada@home of mine")
    file = tmp_path / "key.pub"
    file.write_text(text)
    told = subprocess.run(["ssh-keygen", "-l", "-f", file], capture_output=True, text=True, check=True).stdout
    assert told.split()[1] == key.fingerprint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not an OpenSSH public key type"),
        ("ssh-ed25519", "cut short"),
        ("ssh-ed25519 !!!!", "not base64"),
        (ED25519[:-10] + "==", "cut|base64"),
        (f"ssh-rsa {ED25519.split()[1]}", "not of the type ssh-rsa"),
        ("ssh-ed25519 " + strings(b"ssh-ed25519", b"x" * 31), "damaged"),
        ("ssh-ed25519 " + strings(b"ssh-ed25519", b"x" * 32, b"more"), "damaged"),
        ("ecdsa-sha2-nistp256 " + strings(b"ecdsa-sha2-nistp256", b"nistp384", b"\x04" + b"p" * 64), "damaged"),
        ("ssh-rsa " + strings(b"ssh-rsa", b"\x01\x00\x01", b""), "damaged"),
        (RSA_1024, "1024 bits"),
        ("ssh-dss AAAA", "DSA"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificate"),
        (f'command="x" {ED25519}', "not an OpenSSH public key type"),
        (f"{ED25519}\n{ED25519}", "more than one line"),
        (f"{ED25519} \x1b[2J", "control characters"),
        (f"{ED25519} {'c' * 9000}", "longer than 8192"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA", "private key"),
    ],
    ids=[
        "empty", "no blob", "not base64", "cut", "another type inside", "short", "long", "curve", "no modulus", "small",
        "dsa", "certificate", "options", "two lines", "control", "too long", "private",
    ],
)  # fmt: skip
def test_bad_keys(text: str, said: str) -> None:
    with pytest.raises(BadKey, match=said) as caught:
        parse_public_key(text)
    assert all(part not in str(caught.value) for part in text.split() if len(part) > 40)


@given(st.text(), st.binary(max_size=60))
def test_any_text_is_a_key_or_a_bad_key(text: str, blob: bytes) -> None:
    for candidate in (text, f"ssh-ed25519 {base64.b64encode(blob).decode()}", f"ssh-rsa {text}"):
        try:
            assert parse_public_key(candidate).blob
        except BadKey as error:
            assert str(error)
