"""User certificates: what they let in, and that no bit of one can be changed."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import asyncssh
import msgspec
import pytest
from asyncssh.packet import String
from hypothesis import given
from hypothesis import strategies as st
from tests.proofs import CLIENT, request, security_key, signed

from pitstop_common import userauth
from pitstop_common.certificates import Bounds, Certificate, Fault, forged, judge, parse, user_of
from pitstop_common.credentials import Entered, Unfit, by_certificate, by_token, token_id
from pitstop_common.link import Open
from pitstop_common.messages import AccessReply, Entrant, KnownToken
from pitstop_common.ssh_policy import Revoked, Trust
from pitstop_sandbox.grant import Granted, Refused, check, proof_fault, verifies

NOW = 1_700_000_000.0
JOB = "abcdefghijkl-1"
CA = asyncssh.generate_private_key("ssh-ed25519")
OTHER_CA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
ADA = asyncssh.generate_private_key("ssh-ed25519")


def line(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


def issue(key: asyncssh.SSHKey = ADA, ca: asyncssh.SSHKey = CA, **said: Any) -> bytes:
    said = {"principals": ["ada"], "valid_after": int(NOW - 10), "valid_before": int(NOW + 10), "serial": 7, **said}
    return ca.generate_user_certificate(key, "ada laptop", **said).public_data


GOOD = issue()
TRUST = Trust(user_ca=[line(CA)])


def verdict(blob: bytes, now: float = NOW, client: str = CLIENT, **trust: Any) -> Bounds | Fault:
    return judge(parse(blob), msgspec.structs.replace(TRUST, **trust), now, client, b"")


def test_a_good_one() -> None:
    certificate = parse(GOOD)
    assert (certificate.serial, certificate.id, certificate.principals) == (7, "ada laptop", ("ada",))
    assert certificate.key == ADA.public_data
    assert forged(certificate, verifies) == ""
    assert verdict(GOOD) == Bounds()


@pytest.mark.parametrize(
    ("blob", "changed", "code"),
    [
        (GOOD, {"now": NOW + 10}, "cert_expired"),
        (GOOD, {"now": NOW - 11}, "cert_not_yet"),
        (issue(ca=OTHER_CA), {}, "cert_authority"),
        (GOOD, {"user_ca": []}, "cert_authority"),
        (GOOD, {"revoked": Revoked(serials=[1, 7])}, "cert_revoked"),
        (GOOD, {"revoked": Revoked(ids=["ada laptop"])}, "cert_revoked"),
        (GOOD, {"revoked": Revoked(keys=[userauth.fingerprint(ADA.public_data)])}, "cert_revoked"),
        (GOOD, {"revoked": Revoked(keys=[userauth.fingerprint(CA.public_data)])}, "cert_revoked"),
        (CA.generate_host_certificate(ADA, "h", principals=["ada"]).public_data, {}, "cert_type"),
        (issue(source_address=["198.51.100.0/24"]), {}, "cert_address"),
    ],
)
def test_what_makes_one_useless(blob: bytes, changed: dict[str, Any], code: str) -> None:
    found = verdict(blob, **changed)
    assert isinstance(found, Fault)
    assert found.code == code


def test_revoking_others_does_no_harm() -> None:
    others = Revoked(serials=[6, 8], ids=["ada"], keys=[userauth.fingerprint(OTHER_CA.public_data)])
    assert verdict(GOOD, revoked=others) == Bounds()


@pytest.mark.parametrize(
    ("listed", "client", "good"),
    [
        ("192.0.2.0/24", "192.0.2.7:1", True), ("192.0.2.7", "192.0.2.7:1", True),
        ("10.0.0.0/8,192.0.2.0/28", "192.0.2.7:1", True), ("192.0.2.0/28", "192.0.2.77:1", False),
        ("192.0.2.0/24", "::ffff:192.0.2.7:1", True), ("2001:db8::/32", "2001:db8::1:40000", True),
        ("2001:db8::/32", "2001:db9::1:40000", False), ("192.0.2.0/24", "", False), ("192.0.2.0/24", "nonsense", False),
    ],
)  # fmt: skip
def test_source_addresses(listed: str, client: str, good: bool) -> None:
    assert isinstance(verdict(issue(source_address=listed.split(",")), client=client), Bounds) == good


def altered(name: str, value: bytes, certificate: Certificate) -> Certificate:
    return msgspec.structs.replace(certificate, critical=(*certificate.critical, (name, value)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("no-such-option@example.com", b""), ("force-command", b"unpacked"), ("source-address", String("everywhere")),
     ("verify-required", b""), ("verify-required", b"more")],
)  # fmt: skip
def test_critical_options_that_are_not_understood_or_not_met(name: str, value: bytes) -> None:
    found = judge(altered(name, value, parse(GOOD)), TRUST, NOW, CLIENT, b"")
    assert isinstance(found, Fault)
    assert found.code in {"cert_option", "cert_verification"}


def test_an_option_that_is_said_twice() -> None:
    twice = altered("force-command", String("b"), altered("force-command", String("a"), parse(GOOD)))
    found = judge(twice, TRUST, NOW, CLIENT, b"")
    assert isinstance(found, Fault)
    assert found.code == "cert_option"


@given(st.sets(st.sampled_from(["pty", "port_forwarding", "agent_forwarding", "x11_forwarding", "user_rc"])),
       st.none() | st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))  # fmt: skip
def test_extensions_and_the_forced_command(given_: set[str], command: str | None) -> None:
    every = ("pty", "port_forwarding", "agent_forwarding", "x11_forwarding", "user_rc")
    said: dict[str, Any] = {f"permit_{name}": name in given_ for name in every}
    blob = issue(force_command=command, **said)
    assert verdict(blob) == Bounds(pty="pty" in given_, forwarding="port_forwarding" in given_,
                                   agent="agent_forwarding" in given_, command=command)  # fmt: skip


@given(st.integers(0, len(GOOD) * 8 - 1))
def test_no_bit_of_one_can_be_changed(place: int) -> None:
    raw = bytearray(GOOD)
    raw[place // 8] ^= 1 << place % 8
    try:
        certificate = parse(bytes(raw))
    except userauth.Malformed:
        return
    assert forged(certificate, verifies) != ""


@given(st.binary(max_size=300), st.sampled_from(["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ssh-dss"]))
def test_nonsense_is_malformed(rest: bytes, kind: str) -> None:
    for blob in (rest, String(kind + userauth.CERTIFICATE) + rest, GOOD[: len(rest)], GOOD + rest[:1] + b"x"):
        with pytest.raises(userauth.Malformed):
            parse(blob)


def test_an_authority_that_signs_with_sha1() -> None:
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    assert forged(parse(issue(ca=rsa)), verifies) == ""
    weak = parse(rsa.generate_user_certificate(ADA, "x", principals=["ada"], sig_alg="ssh-rsa").public_data)
    assert "'ssh-rsa', which is not accepted" in forged(weak, verifies)


def test_a_small_key_is_not_certified_larger() -> None:
    small = asyncssh.generate_private_key("ssh-rsa", key_size=1024)
    assert "1024 bits" in forged(parse(issue(key=small)), verifies)
    assert "1024 bits" in forged(parse(issue(ca=small)), verifies)


principals = st.lists(st.sampled_from(["ada", "bob", "eve", "ada@corp", "*", ""]), max_size=4)


@given(principals, st.dictionaries(st.sampled_from(["ada@corp", "eve"]), st.sampled_from(["ada", "bob"])),
       st.sets(st.sampled_from(["ada", "bob"])))  # fmt: skip
def test_principals(named: list[str], table: dict[str, str], users: set[str]) -> None:
    certificate = msgspec.structs.replace(parse(GOOD), principals=tuple(named))
    found = user_of(certificate, Trust(principals=table), users)
    meant = [table.get(one, one) for one in named]
    assert found == next((user for user in meant if user in users), "")


# -- the host's own judgement ----------------------------------------------------------------------------------------


def login(key: asyncssh.SSHKey, blob: bytes, algorithm: str, **changed: Any) -> Open:
    return msgspec.structs.replace(signed(key, JOB, blob=blob, algorithm=algorithm, session=bytes(32)), **changed)


REPLY = AccessReply(found=True, job=JOB, org="acme", actor="ada", status="paused", host="h", offers=True, trust=TRUST,
                    people=(Entrant(user="ada"),))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [
        ("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com"),
        ("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384-cert-v01@openssh.com"),
        ("ssh-rsa", "rsa-sha2-256-cert-v01@openssh.com"), ("ssh-rsa", "rsa-sha2-512-cert-v01@openssh.com"),
    ],
)  # fmt: skip
def test_each_kind_of_certified_key(kind: str, algorithm: str) -> None:
    rsa = kind == "ssh-rsa"
    key = asyncssh.generate_private_key(kind, key_size=2048) if rsa else asyncssh.generate_private_key(kind)
    proof = login(key, issue(key=key), algorithm)
    via = f"certificate 'ada laptop' (serial 7) of {userauth.fingerprint(CA.public_data)}"
    assert check(proof, REPLY, "h", NOW) == Granted("ada", userauth.fingerprint(key.public_data), via=via)


def test_a_certified_rsa_key_does_not_sign_with_sha1() -> None:
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    proof = login(key, issue(key=key), "ssh-rsa-cert-v01@openssh.com")
    assert proof_fault(proof) == "the signature's algorithm is not accepted"


ALGORITHM = "ssh-ed25519-cert-v01@openssh.com"


def test_a_relay_that_lies_opens_nothing_with_a_certificate() -> None:
    """One of its own making, one of another key, one that has expired, one of nobody in this run."""
    stolen = asyncssh.generate_private_key("ssh-ed25519")
    for blob, key, now in (
        (issue(key=stolen, ca=stolen), stolen, NOW), (GOOD, stolen, NOW), (GOOD, ADA, NOW + 10),
        (issue(principals=["eve"]), ADA, NOW), (issue(principals=[]), ADA, NOW),
    ):  # fmt: skip
        found = check(login(key, blob, ALGORITHM), REPLY, "h", now)
        assert isinstance(found, Refused)
        assert found.reason == "bad_grant"
    assert isinstance(check(login(ADA, GOOD, ALGORITHM), REPLY, "h", NOW), Granted)


@given(st.sampled_from(["message", "signature", "key", "session_id"]), st.data())
def test_no_bit_of_a_login_by_certificate_can_be_changed(name: str, data: st.DataObject) -> None:
    proof = login(ADA, GOOD, ALGORITHM)
    raw = bytearray(getattr(proof, name))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    assert isinstance(check(msgspec.structs.replace(proof, **{name: bytes(raw)}), REPLY, "h", NOW), Refused)


def test_who_may_not_enter_is_told_the_rule_and_others_whom_it_is_for() -> None:
    barred = Entrant(user="ada", barrier="ssh_role", barrier_text="ada has the role read")
    closed = msgspec.structs.replace(REPLY, people=(barred,))
    assert by_certificate(parse(GOOD), closed, NOW, CLIENT, b"") == Unfit("ssh_role", "ada has the role read", "ada")
    bob = by_certificate(parse(issue(principals=["bob"])), REPLY, NOW, CLIENT, b"")
    assert isinstance(bob, Unfit)
    assert (bob.code, "'bob'" in bob.text) == ("cert_principal", True)


# -- security keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"])
@pytest.mark.parametrize("required", [False, True])
@pytest.mark.parametrize(("flags", "touched", "verified"), [(0, False, False), (1, True, False), (5, True, True),
                                                           (4, False, True)])  # fmt: skip
def test_security_keys(kind: str, required: bool, flags: int, touched: bool, verified: bool) -> None:
    """By itself and certified: a touch is always needed, a PIN or finger where the certificate says so."""
    blob, sign = security_key(kind)
    key = asyncssh.import_public_key(f"{kind} {base64.b64encode(blob).decode()}")
    certified = CA.generate_user_certificate(key, "token", principals=["ada"], touch_required=True).public_data
    if required:
        certified = with_critical(certified, "verify-required")
    for proof_key, algorithm in ((blob, kind), (certified, kind.replace("@", "-cert-v01@"))):
        message = request(JOB, algorithm, proof_key)
        proof = Open(job=JOB, session_id=bytes(32), message=message, key=proof_key, client=CLIENT,
                     signature=sign(String(bytes(32)) + message, flags))  # fmt: skip
        assert (proof_fault(proof) == "") == touched
        if proof_key is certified:
            good = touched and (verified or not required)
            assert isinstance(check(proof, REPLY, "h", NOW), Granted) == good


def with_critical(blob: bytes, name: str) -> bytes:
    """The certificate, signed again with one critical option more."""
    certificate = parse(blob)
    old = String(b"") + String(b"".join(String(key) + String(value) for key, value in certificate.extensions))
    new = String(String(name) + String(b"")) + old[4:]
    assert certificate.signed.count(old) == 1
    signed = certificate.signed.replace(old, new)
    return signed + String(CA.sign(signed, b"ssh-ed25519"))


# -- access tokens ---------------------------------------------------------------------------------------------------

ID, SECRET = "ssh-0123456789abcdef", "s" * 43
TOKEN = KnownToken(id=ID, org="acme", user="ada", job=JOB, hash=hashlib.sha256(SECRET.encode()).hexdigest())


def token_reply(**changed: Any) -> AccessReply:
    return msgspec.structs.replace(REPLY, token=msgspec.structs.replace(TOKEN, **changed))


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, ""), ({"job": ""}, ""), ({"over": True}, "token_expired"), ({"job": "abcdefghijkl-2"}, "token_other"),
        ({"org": "other"}, "token_other"), ({"user": "bob"}, "not_your_run"), ({"hash": "0" * 64}, "bad_token"),
        ({"id": "ssh-aaaaaaaaaaaaaaaa"}, "bad_token"), ({"over": True, "hash": "0" * 64}, "bad_token"),
    ],
)  # fmt: skip
def test_access_tokens(changed: dict[str, Any], code: str) -> None:
    found = by_token(f"{ID}.{SECRET}", token_reply(**changed))
    assert found == Entered("ada") if not code else isinstance(found, Unfit) and found.code == code
    proof = Open(job=JOB, session_id=bytes(32), token=f"{ID}.{SECRET}")
    granted = check(proof, token_reply(**changed), "h", NOW)
    assert granted == Granted("ada", ID) if not code else isinstance(granted, Refused)


@given(st.text(max_size=90))
def test_no_other_password_is_a_token(password: str) -> None:
    assert by_token(password, token_reply()) == Unfit("bad_token")
    assert by_token(f"{ID}.{password}", token_reply()) == Unfit("bad_token") or password == SECRET
    assert token_id(password) == ""


def test_without_a_token_there_is_none() -> None:
    assert by_token(f"{ID}.{SECRET}", REPLY) == Unfit("bad_token")
    signed = login(ADA, GOOD, ALGORITHM, token=f"{ID}.{SECRET}")
    assert proof_fault(signed) == "a token and a signature"
    assert isinstance(check(Open(job=JOB, session_id=bytes(32)), token_reply(), "h", NOW), Refused)
