"""What the janitor makes of bytes: deadlines, advisories, settings. Nothing malformed gets through, or gets lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop_common import limits
from pitstop_common.config import load
from pitstop_common.errors import ConfigError
from pitstop_common.messages import Fired, decode_fact, encode
from pitstop_janitor.collectors.expiry import expired
from pitstop_janitor.collectors.poison import Advisory, Poisoned, advised, letter_headers, org_of
from pitstop_janitor.collectors.pulled import Unusable
from pitstop_janitor.config import JanitorConfig

FIRED = Fired(org="acme", run="abcdefghijkl", project="web", request="r1", job="abcdefghijkl-1", attempt=2,
              reason="idle", revision=7)  # fmt: skip
ADVISORY = Advisory(type="io.nats.jetstream.advisory.v1.max_deliver", stream="REQ", consumer="intake", stream_seq=4,
                    deliveries=10)  # fmt: skip


def test_a_deadline_becomes_a_fact_that_says_all_it_knew() -> None:
    fact = expired(encode(FIRED), time="2026-01-01T00:00:00.000Z", cause="TIMERS:9")
    assert fact.id == "expired.abcdefghijkl-1.2.idle.7"
    assert (fact.org, fact.run, fact.job, fact.attempt) == ("acme", "abcdefghijkl", "abcdefghijkl-1", 2)
    assert (fact.reason, fact.revision, fact.project, fact.request) == ("idle", 7, "web", "r1")
    assert decode_fact(encode(fact)) == fact


def test_the_same_deadline_gives_the_same_bytes_whoever_reads_it() -> None:
    made = [encode(expired(encode(FIRED), time="t", cause="c")) for _ in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize(
    "change",
    [{"org": "a.b"}, {"org": ">"}, {"org": ""}, {"run": "*"}, {"run": "ABCDEFGHIJKL"}, {"job": "abcdefghijkl"},
     {"reason": "bored"}, {"revision": "7"}, {"attempt": None}],
)  # fmt: skip
def test_a_deadline_that_could_forge_a_subject_is_unusable(change: dict[str, object]) -> None:
    body = json.loads(encode(FIRED)) | change
    with pytest.raises(Unusable, match="not a deadline"):
        expired(json.dumps(body).encode(), time="t", cause="c")


@given(st.binary(max_size=60))
def test_no_bytes_break_the_readers(body: bytes) -> None:
    with pytest.raises(Unusable):
        expired(body, time="t", cause="c")
    with pytest.raises(Unusable):
        advised(body)
    assert org_of(body) == ""


@given(st.text(max_size=50))
def test_the_org_of_a_letter_is_an_org_or_nothing(text: str) -> None:
    found = org_of(json.dumps({"org": text}).encode())
    assert found in {"", text}
    assert not found or limits.ORG.match(found)


def test_the_letter_of_a_message_says_where_it_was_and_why() -> None:
    headers = letter_headers(ADVISORY, Poisoned(subject="run.requested", data=b"12345"), 5)
    assert headers == {
        "Nats-Msg-Id": "dlq.REQ:4",
        "Pitstop-Stream": "REQ",
        "Pitstop-Seq": "4",
        "Pitstop-Reason": "intake tried it 10 times",
        "Pitstop-Subject": "run.requested",
    }


def test_a_letter_says_what_is_missing_of_it() -> None:
    assert letter_headers(ADVISORY, Poisoned(data=b"12345"), 3)["Pitstop-Truncated"] == "5"
    assert "Pitstop-Missing" in letter_headers(ADVISORY, Poisoned(missing=True), 0)


@given(st.text())
def test_a_reason_cannot_forge_a_header(reason: str) -> None:
    told = letter_headers(Advisory("x", "S", "c", 1, 1, reason or "-"), Poisoned(), 0)["Pitstop-Reason"]
    assert told.isprintable() and told.isascii() and len(told) <= 500


def test_all_wrong_settings_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(JanitorConfig, {"PITSTOP_SCAN_INTERVAL": "soon", "PITSTOP_HOST_LOST_AFTER": "2h"})
    for name in ("PITSTOP_NATS_URL", "PITSTOP_SCAN_INTERVAL", "PITSTOP_HOST_LOST_AFTER"):
        assert name in str(caught.value)


def test_the_settings_have_the_numbers_of_the_contract() -> None:
    config = load(JanitorConfig, {"PITSTOP_NATS_URL": "nats://x:1"})
    assert (config.scan_interval, config.host_lost_after) == (limits.HEARTBEAT_INTERVAL, limits.HOST_LOST_AFTER)
    assert config.host_lost_after > limits.ORPHAN_GRACE
