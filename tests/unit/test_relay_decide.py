"""Who may pass."""

from __future__ import annotations

import typing
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common.messages import AccessReply, AllowedKey, JobStatus
from pitstop_relay.decide import decide
from pitstop_relay.doorkeeper import Doorkeeper
from pitstop_relay.model import Admit, Attempt, Code, Denial

NOW = 1_700_000_000.0
CODES = {code for part in typing.get_args(Code) for code in typing.get_args(part)}
ATTEMPT = Attempt(job="abcdefghijkl-1", key="ssh-ed25519 AAAA", fingerprint="SHA256:abc")
ADA = AllowedKey(user="ada", key="ssh-ed25519 AAAA", fingerprint="SHA256:abc")
OTHER = AllowedKey(user="eve", key="ssh-ed25519 BBBB", fingerprint="SHA256:def")

replies = st.builds(
    AccessReply,
    found=st.booleans(),
    status=st.sampled_from(typing.get_args(typing.get_args(JobStatus)[0]) or typing.get_args(JobStatus)),
    host=st.sampled_from(["", "host-a"]),
    offers=st.booleans(),
    owner=st.sampled_from(["", "bob"]),
    actor=st.just("ada"),
    allowed=st.lists(st.sampled_from([ADA, OTHER]), unique=True).map(tuple),
)


@given(replies)
def test_only_an_allowed_key_of_a_living_job_that_offers_ssh_on_a_host_gets_in(access: AccessReply) -> None:
    verdict = decide(ATTEMPT, access, NOW)
    may = (
        access.found
        and access.offers
        and ADA in access.allowed
        and access.host != ""
        and access.status not in ("queued", "stopping", "finished")
    )
    assert isinstance(verdict, Admit) == may
    if may:
        assert verdict == Admit(user="ada", host="host-a")


@given(replies)
def test_every_denial_says_why_and_what_to_do(access: AccessReply) -> None:
    verdict = decide(ATTEMPT, access, NOW)
    if isinstance(verdict, Denial):
        first, second, rest = verdict.text.split("\n")
        assert first.startswith("pitstop: ")
        assert second.startswith("  ")
        assert rest == ""
        assert verdict.code in CODES
        assert len(verdict.text) < 1024


@given(replies)
def test_a_stranger_learns_no_user_but_whose_run_it_is(access: AccessReply) -> None:
    verdict = decide(ATTEMPT, msgspec.structs.replace(access, allowed=(OTHER,), owner=""), NOW)
    assert isinstance(verdict, Denial)
    assert "eve" not in verdict.text


def test_whom_a_rule_keeps_out_is_told_which() -> None:
    access = AccessReply(
        found=True, job="j", status="paused", host="h", offers=True, owner="ada", barrier="ssh_role",
        barrier_text="ada has the role read, and SSH needs write",
    )  # fmt: skip
    verdict = decide(ATTEMPT, access, NOW)
    assert isinstance(verdict, Denial)
    assert (verdict.code, verdict.text.splitlines()[0]) == (
        "ssh_role",
        "pitstop: ada has the role read, and SSH needs write.",
    )


def test_that_a_server_of_keys_is_down_is_said_without_names() -> None:
    access = AccessReply(
        found=True, status="paused", host="h", offers=True, linked="The keys of github:eve cannot be read"
    )
    verdict = decide(ATTEMPT, access, NOW)
    assert isinstance(verdict, Denial)
    assert "eve" not in verdict.text
    assert "A server of keys of people of this run does not answer now" in verdict.text


def test_the_right_key_among_many() -> None:
    access = AccessReply(found=True, status="paused", host="h", offers=True, allowed=(OTHER, ADA))
    assert decide(ATTEMPT, access, NOW) == Admit(user="ada", host="h")


@given(st.lists(st.tuples(st.sampled_from("kel"), st.sampled_from("ab")), max_size=60))
def test_the_doorkeeper_counts_right(story: list[tuple[str, str]]) -> None:
    keeper = Doorkeeper(total=6, logins=4, per_address=3)
    waiting: list[str] = []
    inside: list[str] = []
    for act, address in story:
        if act == "k":
            full = len(waiting) + len(inside) >= 6 or len(waiting) >= 4 or waiting.count(address) >= 3
            assert bool(keeper.knock(address)) == full
            if not full:
                waiting.append(address)
        elif act == "e" and address in waiting:
            waiting.remove(address)
            inside.append(address)
            keeper.entered(address)
        elif act == "l" and address in inside:
            inside.remove(address)
            keeper.left(address, inside=True)
        elif act == "l" and address in waiting:
            waiting.remove(address)
            keeper.left(address, inside=False)
        assert keeper.count == len(waiting) + len(inside)


def test_every_reason_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "access.md").read_text()
    assert [code for code in sorted(CODES) if f"`{code}`" not in page] == []
