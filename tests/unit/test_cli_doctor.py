"""`pitstop doctor ssh`: what is said of each key that would be offered."""

from __future__ import annotations

from typing import Any

from pitstop_cli.checks import Check
from pitstop_cli.checks_ssh import Offered, job, keys

ADA = {"user": "ada", "fingerprint": "SHA256:ada"}


def entry(status: str = "paused", *allowed: dict[str, str]) -> dict[str, Any]:
    return {"job": {"job": "aaaaaaaaaaaa-1", "run": "aaaaaaaaaaaa", "status": status, "result": "failure"},
            "allowed": list(allowed)}  # fmt: skip


def told(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.name, check.state) for check in checks]


def test_the_key_that_lets_in_is_found_behind_others() -> None:
    offered = [Offered("SHA256:x", "agent"), Offered("SHA256:old", "/k/old"), Offered("SHA256:ada", "/k/new")]
    found = keys(entry("paused", ADA), offered, [{"fingerprint": "SHA256:old"}])
    assert told(found) == [("key 1", "warn"), ("key 2", "warn"), ("key 3", "ok")]
    assert found[0].fix == "ssh-add -L | pitstop keys add -"
    assert "yours, but not for this job" in found[1].found
    assert found[2].found == "SHA256:ada (/k/new): lets you in as ada"


def test_a_good_key_behind_too_many_is_never_reached() -> None:
    offered = [Offered(f"SHA256:{number}", "agent") for number in range(20)] + [Offered("SHA256:ada", "/k")]
    assert told(keys(entry("paused", ADA), offered, []))[-1] == ("login", "fail")


def test_no_key_and_no_good_key_are_told_apart() -> None:
    assert told(keys(entry("paused", ADA), [], [])) == [("keys", "fail")]
    found = keys(entry("paused", ADA), [Offered("SHA256:x", "/home/ada/.ssh/id_ed25519")], [])
    assert told(found) == [("key 1", "warn"), ("login", "fail")]
    assert found[0].fix == "pitstop keys add /home/ada/.ssh/id_ed25519.pub"


def test_a_job_that_nobody_can_enter_says_why() -> None:
    assert told(job(entry("finished", ADA))) == [("job", "fail")]
    assert told(job(entry("running"))) == [("job", "fail")]
    assert told(job(entry("queued", ADA))) == [("job", "warn"), ("lets in", "ok")]
    assert told(job(entry("paused", ADA))) == [("job", "ok"), ("lets in", "ok")]
