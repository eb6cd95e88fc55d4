"""Secrets at rest and who may have them: keys, contexts, refusals."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_scheduler_grants import Desk

from pitstop_cli.local.credentials import secrets_key
from pitstop_common import messages as m
from pitstop_common.errors import ConfigError
from pitstop_common.limits import MAX_SEAL_CHARS
from pitstop_common.sealing import BadSeal, HostKey, for_attempt, seal
from pitstop_scheduler.context_rules import Context, bad_name, closed_to, outside, refusal
from pitstop_scheduler.keyring import Encrypted, Keyring, NoKey, read_keyring

KEY = bytes(range(32))
NAMES = st.sampled_from(["ada", "bob", "eve", ""])
PLACE = st.tuples(st.sampled_from(["acme", "other"]), st.sampled_from(["deploy", "a"]), st.sampled_from(["TOKEN", "B"]))


def lines(*texts: str) -> str:
    return "".join(f"{text}\n" for text in texts)


def line(id: str, key: bytes = KEY) -> str:
    return f"{id} {base64.b64encode(key).decode()}"


# -- at rest -----------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200), PLACE, PLACE)
def test_a_value_opens_in_its_own_place_only(value: str, place: tuple[str, ...], other: tuple[str, ...]) -> None:
    keys = Keyring({"k1": KEY})
    stored = keys.encrypt(value, *place)
    assert keys.decrypt(stored, *place) == value
    assert value.encode() not in stored.data or len(value.encode()) < 4
    if place != other:
        with pytest.raises(NoKey):
            keys.decrypt(stored, *other)


def test_the_same_value_is_never_encrypted_alike() -> None:
    keys = Keyring({"k1": KEY})
    assert len({keys.encrypt("value", "acme", "deploy", "TOKEN").data for _ in range(20)}) == 20


def test_a_new_first_key_encrypts_and_the_old_one_still_opens(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(line("old"))
    stored = read_keyring(str(file)).encrypt("value", "acme", "deploy", "TOKEN")
    file.write_text(lines("# rotated", secrets_key(), line("old") + "  # until all is renewed", ""))
    both = read_keyring(str(file))
    assert both.decrypt(stored, "acme", "deploy", "TOKEN") == "value"
    fresh = both.encrypt("value", "acme", "deploy", "TOKEN")
    assert fresh.key == both.current != stored.key == "old"
    with pytest.raises(NoKey, match="no line of the key file"):
        Keyring({"new": KEY}).decrypt(stored, "acme", "deploy", "TOKEN")
    swapped = Encrypted(key=both.current, nonce=stored.nonce, data=stored.data)
    with pytest.raises(NoKey, match="does not open"):
        both.decrypt(swapped, "acme", "deploy", "TOKEN")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("# only words\n", "holds no key"),
        (lines(line("a"), line("a")), ":2 should be"),
        (lines(line("a"), line("b", KEY[:16])), ":2 should be"),
        (lines("a b c"), ":1 should be"),
        (lines(f"bad/id {base64.b64encode(KEY).decode()}"), ":1 should be"),
        ("ключ", "not ASCII"),
    ],
)
def test_a_wrong_key_file_is_told_without_its_keys(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_keyring(str(file))
    assert base64.b64encode(KEY).decode() not in str(caught.value)


def test_without_a_key_nothing_is_encrypted(tmp_path: Path) -> None:
    assert not read_keyring("")
    with pytest.raises(NoKey, match="PITSTOP_SECRETS_KEY_FILE"):
        read_keyring("").encrypt("value", "acme", "deploy", "TOKEN")
    with pytest.raises(ConfigError, match="cannot read"):
        read_keyring(str(tmp_path / "missing"))


# -- on their way ------------------------------------------------------------------------------------------------------


def test_what_is_sealed_opens_for_one_host_and_attempt_only(tmp_path: Path) -> None:
    host, other = HostKey.kept(tmp_path / "a.key"), HostKey.kept(tmp_path / "b.key")
    assert (tmp_path / "a.key").stat().st_mode & 0o777 == 0o600
    assert HostKey.kept(tmp_path / "a.key").public == host.public, "kept over a restart"
    purpose = for_attempt("job-1", 1, "host-a", "one")
    sealed = seal(b"values", host.public, purpose)
    assert b"values" not in sealed and sealed != seal(b"values", host.public, purpose)
    assert HostKey.kept(tmp_path / "a.key").open(sealed, purpose) == b"values"
    wrong = [(other, sealed, purpose), (host, sealed, for_attempt("job-1", 2, "host-a", "one")),
             (host, sealed, for_attempt("job-1", 1, "host-a", "two")), (host, sealed[:-1], purpose),
             (host, bytes([sealed[0] ^ 1]) + sealed[1:], purpose), (host, b"", purpose)]  # fmt: skip
    for key, text, meant in wrong:
        with pytest.raises(BadSeal):
            key.open(text, meant)


@pytest.mark.parametrize("public", ["", "no base64!", "c2hvcnQ=", base64.b64encode(bytes(32)).decode()])
def test_nothing_is_sealed_to_what_is_no_key(public: str) -> None:
    with pytest.raises(BadSeal):
        seal(b"values", public, "purpose")


def test_a_damaged_host_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "host.key").write_bytes(b"short")
    with pytest.raises(ConfigError, match="remove it"):
        HostKey.kept(tmp_path / "host.key")


# -- who may have them -------------------------------------------------------------------------------------------------

CONTEXTS = st.builds(
    Context,
    members=st.none() | st.lists(NAMES.filter(bool), max_size=2).map(tuple),
    projects=st.none() | st.lists(st.sampled_from(["web", "api"]), max_size=2).map(tuple),
    publisher=st.booleans(),
)


ADMIN = "An admin of acme (ada)"


@given(CONTEXTS, NAMES, st.sampled_from(["web", "api"]), st.booleans())
def test_a_run_has_a_context_if_and_only_if_all_rules_hold(
    context: Context, actor: str, project: str, vouched: bool
) -> None:
    why = refusal("deploy", context, actor=actor, project=project, vouched=vouched, admins=ADMIN)
    member = context.members is None or actor in context.members
    in_project = context.projects is None or project in context.projects
    assert (not why) == (member and in_project and (vouched or context.publisher))
    assert not why or all(part in why for part in ("deploy", "`pitstop secrets restrict deploy --", f"{ADMIN} can"))


@given(CONTEXTS, CONTEXTS, NAMES)
def test_only_members_of_all_contexts_enter_and_change_them(one: Context, other: Context, user: str) -> None:
    members = [one.members is None or user in one.members, other.members is None or user in other.members]
    barred = outside({"one": one, "other": other}, user, ADMIN)
    assert (barred is None) == all(members)
    assert barred is None or (barred.code == "ssh_context" and f"{ADMIN} can" in barred.text)
    assert outside({"one": None}, user, ADMIN), "one that is gone admits nobody"
    assert bool(closed_to("one", one, user, "write", ADMIN)) == (not members[0])
    assert not closed_to("one", one, user, "admin", ADMIN)


def test_an_unknown_context_is_told_with_the_command() -> None:
    why = refusal("nope", None, actor="ada", project="web", vouched=True, admins=ADMIN)
    assert "pitstop secrets set nope" in why


def test_the_variables_of_the_runner_are_its_own() -> None:
    assert bad_name("GITHUB_TOKEN") and bad_name("pitstop_x") and not bad_name("API_TOKEN")


# -- whose key it is ---------------------------------------------------------------------------------------------------


def claimed(host: str, incarnation: str, key: str, attempt: int = 1) -> m.JobClaimed:
    return m.JobClaimed(id=f"{host}.{incarnation}", time="", org="acme", run="a", job="a-1", attempt=attempt, host=host,
                        incarnation=incarnation, key=key)  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from(["h", "thief"]), st.sampled_from("123"), st.sampled_from(["own", "x"])), max_size=8
    )
)
def test_the_key_of_an_attempt_is_that_of_its_first_claim(later: list[tuple[str, str, str]]) -> None:
    """A holder of the hosts' credential may say anything in the name of any host."""
    desk = Desk(org=1, room=9)
    jobs = (m.AcceptedJob(job="a-1", key="build", pool="default"),)
    desk.tell(m.RunAccepted(id="a", time="", org="acme", run="a", project="web", jobs=jobs, source="REQ:1"))
    desk.tell(claimed("h", "1", "own"))
    for host, incarnation, key in later:
        desk.tell(claimed(host, incarnation, key))
        job = desk.state.jobs["a-1"]
        assert (job.host, job.seal) == ("h", "own")


def test_a_key_that_is_none_takes_no_room_in_the_log() -> None:
    desk = Desk(org=1, room=9)
    jobs = (m.AcceptedJob(job="a-1", key="build", pool="default"),)
    desk.tell(m.RunAccepted(id="a", time="", org="acme", run="a", project="web", jobs=jobs, source="REQ:1"))
    desk.tell(claimed("h", "1", "k" * 100_000))
    assert len(desk.state.jobs["a-1"].seal) == MAX_SEAL_CHARS
    desk.tell(m.JobFinished(id="f", time="", org="acme", run="a", job="a-1", attempt=1, host="h", incarnation="1",
                            serial=9, result="success"))  # fmt: skip
    assert desk.state.jobs["a-1"].seal == ""
