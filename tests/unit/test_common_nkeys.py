"""Account keys and the JWTs they sign. (That a real server takes them: tests/integration/test_logins.py.)"""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from pitstop_common.errors import ConfigError
from pitstop_common.nkeys import AccountKey, claims_of

KEY = AccountKey(bytes(range(32)))


@given(st.binary(min_size=32, max_size=32))
def test_a_seed_is_the_key(raw: bytes) -> None:
    key = AccountKey(raw)
    assert key.seed.startswith("SA") and key.public.startswith("A")
    assert (len(key.seed), len(key.public)) == (58, 56)
    assert AccountKey.from_seed(f" {key.seed}\n").public == key.public


@given(st.integers(0, 57), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
@example(place=57, letter="J")
def test_one_wrong_letter_is_noticed(place: int, letter: str) -> None:
    wrong = KEY.seed[:place] + letter + KEY.seed[place + 1 :]
    if wrong != KEY.seed:
        with pytest.raises(ConfigError):
            AccountKey.from_seed(wrong)


@pytest.mark.parametrize(
    "text", ["", "SA", KEY.public, "not base32!", "sä", "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNP"]
)
def test_what_is_no_seed_of_an_account(text: str) -> None:
    with pytest.raises(ConfigError, match="not the seed of an account key"):
        AccountKey.from_seed(text)


@given(st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=9), max_size=4))
def test_a_jwt_says_what_was_signed(claims: dict[str, Any]) -> None:
    token = KEY.sign(claims)
    said = claims_of(token.encode())
    assert {**said, **claims} == {**claims, "iss": said["iss"], "jti": said["jti"]} | claims
    signed, _, signature = token.rpartition(".")
    raw = base64.b32decode(KEY.public)[1:-2]
    proof = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    Ed25519PublicKey.from_public_bytes(raw).verify(proof, signed.encode())


@pytest.mark.parametrize("token", [b"", b"a.b", b"a.!.c", b"a.W10.c"])
def test_what_is_no_jwt(token: bytes) -> None:
    with pytest.raises(ValueError):
        claims_of(token)
