"""A login counts only when its user signed it, for this job, with this key."""

from __future__ import annotations

import hashlib
import struct

import asyncssh
import msgspec
import pytest
from asyncssh.packet import Boolean, Byte, MPInt, String
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common import userauth
from pitstop_common.link import Open
from pitstop_common.messages import AccessReply, AllowedKey
from pitstop_sandbox.grant import Granted, Refused, check, proof_fault

JOB = "abcdefghijkl-1"
NOW = 1_700_000_000.0
KEYS = {
    kind: asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521")
}
RSA = asyncssh.generate_private_key("ssh-rsa", key_size=2048)


def login(key: asyncssh.SSHKey, algorithm: str, job: str = JOB, session_id: bytes = bytes(32)) -> Open:
    message = (
        Byte(50) + String(job) + String("ssh-connection") + String("publickey") + Boolean(True) + String(algorithm)
        + String(key.public_data)
    )  # fmt: skip
    signature = key.sign(String(session_id) + message, algorithm.encode())
    return Open(job=job, session_id=session_id, message=message, signature=signature, key=key.public_data)


GOOD = login(KEYS["ssh-ed25519"], "ssh-ed25519")


def reply(key: asyncssh.SSHKey, **changed: object) -> AccessReply:
    text = " ".join(key.export_public_key().decode().split()[:2])
    entry = AllowedKey(user="ada", key=text, fingerprint=userauth.fingerprint(key.public_data))
    made = AccessReply(found=True, job=JOB, status="paused", host="h", offers=True, allowed=(entry,))
    return msgspec.structs.replace(made, **changed)


@pytest.mark.parametrize("kind", list(KEYS))
def test_each_kind_of_key(kind: str) -> None:
    key = KEYS[kind]
    assert check(login(key, kind), reply(key), "h", NOW) == Granted("ada", userauth.fingerprint(key.public_data))


@pytest.mark.parametrize("algorithm", ["rsa-sha2-256", "rsa-sha2-512"])
def test_rsa_with_sha2(algorithm: str) -> None:
    assert isinstance(check(login(RSA, algorithm), reply(RSA), "h", NOW), Granted)


def test_rsa_with_sha1_is_not_accepted_however_it_is_named() -> None:
    assert proof_fault(login(RSA, "ssh-rsa")) == "the signature's algorithm is not accepted"
    named = login(RSA, "rsa-sha2-256")
    weak = RSA.sign(String(named.session_id) + named.message, b"ssh-rsa")
    assert proof_fault(msgspec.structs.replace(named, signature=weak)) == "the signature's algorithm is not accepted"


def test_a_security_key_counts_only_when_it_was_touched() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    kind = "sk-ssh-ed25519@openssh.com"
    blob = String(kind) + String(public) + String("ssh:")
    message = (
        Byte(50) + String(JOB) + String("ssh-connection") + String("publickey") + Boolean(True) + String(kind)
        + String(blob)
    )  # fmt: skip
    for flags, fault in ((1, ""), (0, "the signature is wrong")):
        counter = struct.pack(">BI", flags, 7)
        signed = hashlib.sha256(b"ssh:").digest() + counter + hashlib.sha256(String(bytes(32)) + message).digest()
        signature = String(kind) + String(private.sign(signed)) + counter
        proof = Open(job=JOB, session_id=bytes(32), message=message, signature=signature, key=blob)
        assert proof_fault(proof) == fault


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"found": False}, "ended"),
        ({"status": "finished"}, "ended"),
        ({"status": "stopping"}, "ended"),
        ({"offers": False}, "no_ssh"),
        ({"host": "other"}, "elsewhere"),
        ({"allowed": ()}, "bad_grant"),
    ],
)
def test_the_hosts_own_answer_counts(changed: dict[str, object], reason: str) -> None:
    verdict = check(GOOD, reply(KEYS["ssh-ed25519"], **changed), "h", NOW)
    assert isinstance(verdict, Refused)
    assert verdict.reason == reason


fields = st.sampled_from(["job", "session_id", "message", "signature", "key"])


@given(fields, st.data())
def test_no_bit_of_a_proof_can_be_changed(name: str, data: st.DataObject) -> None:
    value = getattr(GOOD, name)
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 6))
    changed = raw.decode("latin-1") if isinstance(value, str) else bytes(raw)
    assert proof_fault(msgspec.structs.replace(GOOD, **{name: changed})) != ""


@given(st.binary(max_size=300), st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=70))
def test_nonsense_is_refused_and_never_raises(message: bytes, signature: bytes, key: bytes, session_id: bytes) -> None:
    proof = Open(job=JOB, session_id=session_id, message=message, signature=signature, key=key)
    assert proof_fault(proof) != ""


@given(st.binary(max_size=200))
def test_a_signature_of_nonsense_is_refused(signature: bytes) -> None:
    assert proof_fault(msgspec.structs.replace(GOOD, signature=signature)) != ""
    assert proof_fault(msgspec.structs.replace(GOOD, signature=String("ssh-ed25519") + String(signature))) != ""


@given(st.binary(max_size=200), st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "rsa-sha2-256"]))
def test_a_key_of_nonsense_is_refused(rest: bytes, kind: str) -> None:
    blob = String(kind) + rest
    message = (
        Byte(50) + String(JOB) + String("ssh-connection") + String("publickey") + Boolean(True) + String(kind)
        + String(blob)
    )  # fmt: skip
    proof = Open(job=JOB, session_id=bytes(32), message=message, signature=String(kind) + String(rest), key=blob)
    assert proof_fault(proof) != ""


def test_a_huge_key_costs_nothing() -> None:
    blob = String("ssh-rsa") + MPInt(3) + MPInt(2**60000 + 1)
    assert proof_fault(msgspec.structs.replace(GOOD, key=blob)) == "the key is too long"


@given(st.text(max_size=20), st.text(alphabet="abc-", max_size=12), st.binary(max_size=30))
def test_parsing_gives_back_what_was_written(user: str, algorithm: str, key: bytes) -> None:
    message = (
        Byte(50) + String(user) + String("ssh-connection") + String("publickey") + Boolean(True) + String(algorithm)
        + String(key)
    )  # fmt: skip
    assert userauth.parse(message) == userauth.Login(user, algorithm, key)
    for cut in range(len(message)):
        with pytest.raises(userauth.Malformed):
            userauth.parse(message[:cut])


@pytest.mark.parametrize("byte", [0, 2, 255])
def test_only_a_request_that_says_it_is_signed(byte: int) -> None:
    place = GOOD.message.index(b"publickey") + len(b"publickey")
    message = GOOD.message[:place] + bytes([byte]) + GOOD.message[place + 1 :]
    with pytest.raises(userauth.Malformed, match="without a signature"):
        userauth.parse(message)
