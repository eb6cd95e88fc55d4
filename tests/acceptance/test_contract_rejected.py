"""Bad messages: each faulty field is named, the message is kept, and whatever comes next is taken in as ever."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.acceptance.support.outside import Outside, Place, outside, running

GOOD: dict[str, Any] = {"org": "acme", "project": "web", "steps": [{"run": "true"}]}
EXPRESSION = """
jobs:
  build:
    steps:
      - run: echo one
      - run: echo two
        if: github.ref == 'main'
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("rejected")) as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


CREDENTIAL = b"ada:secret"


def workflow(text: str) -> dict[str, Any]:
    return {"org": "acme", "project": "web", "workflow": text}


async def rejected(anybody: Outside, data: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What is said of a bad message. A good one, published right behind it, runs."""
    next_id = uuid.uuid4().hex
    await anybody.publish(data, headers)
    await anybody.publish(GOOD | {"id": next_id})
    event = await anybody.hear("run.rejected")
    await anybody.hear("run.finished", request=next_id)
    assert len(anybody.all("run.rejected")) == 1, "said once"
    letter = await anybody.api("dlq-show", {"seq": event["dead_letter"]}, org=event["org"] or "acme")
    sent = data if isinstance(data, bytes) else json.dumps(data).encode()
    if CREDENTIAL in sent:  # kept without it, and so that it can be read as JSON
        assert json.loads(letter["body"]) == json.loads(sent.replace(CREDENTIAL, b"***:***"))
    else:
        assert letter["bytes"] == len(sent) and letter["body"] == sent.decode(errors="replace")
    assert (letter["stream"], letter["subject"]) == ("REQ", "run.requested")
    return event


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"make test", "is not JSON"),
        (b"", "is not JSON"),
        (b'{"org": "acme", "project": "web"', "is not JSON"),
        (b'{"org": "acme", "project": "\xff"}', "is not JSON"),
        (b'["org", "acme"]', "must be a JSON object"),
        (b"[" * 100_000, "nested deeper than 32 levels"),
        (json.dumps(GOOD | {"inputs": json.loads("[" * 40 + "]" * 40)}).encode(), "nested deeper than 32 levels"),
        (json.dumps(GOOD | {"env": {"A": "x" * 600_000}}).encode(), "bytes long; at most 524288"),
    ],
    ids=["text", "empty", "cut", "utf8", "array", "brackets", "deep", "large"],
)  # fmt: skip
async def test_what_cannot_be_read_is_nobodys(anybody: Outside, data: bytes, says: str) -> None:
    event = await rejected(anybody, data)
    (fault,) = event["errors"]
    assert fault["pointer"] == "" and says in fault["message"]
    assert (event["org"], event["run"], event["request"]) == ("", "", "")
    assert (await anybody.stored("EVENTS", "run.rejected._._"))[-1].data == anybody.all("run.rejected")[0].data


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"project": 7}, ["/project"]),
        ({"org": "ACME"}, ["/org"]),
        ({"steps": "make"}, ["/steps"]),
        ({"steps": [{"run": "true"}, {"run": ["make"]}]}, ["/steps/1/run"]),
        ({"steps": [{"name": "nothing"}]}, ["/steps/0"]),
        ({"env": {"A": 1, "B": "fine"}}, ["/env/A"]),
        ({"priority": "high", "pool": "Big Pool"}, ["/pool", "/priority"]),
        ({"ssh": {"pause": "after_step", "step": 2}}, ["/ssh/step"]),
        ({"ssh": {"pause": "after_step", "step": "deploy"}}, ["/ssh/step"]),
        ({"ssh": {"pause": "at_once"}}, ["/ssh/pause"]),
        ({"ssh": {"pause": "at_end", "keys": ["ssh-ed25519 AAAA"], "idle_timeout": 0}},
         ["/ssh/idle_timeout", "/ssh/keys/0"]),
        ({"id": "x" * 129}, ["/id"]),
        ({"id": "two\nlines"}, ["/id"]),
        ({"id": "bell\x07"}, ["/id"]),
        ({"actor": "ada\u202e"}, ["/actor"]),
        ({"actor": "a.b"}, ["/actor"]),
        ({"project": "../web"}, ["/project"]),
        ({"source": {"git": "https://ada:secret@example.org/web.git"}}, ["/source/git"]),
        ({"workflow": "jobs: {}"}, [""]),
        ({"secrets": ["production"]}, ["/secrets/0"]),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)  # fmt: skip
async def test_each_faulty_field_is_named(anybody: Outside, change: dict[str, Any], pointers: list[str]) -> None:
    event = await rejected(anybody, GOOD | change)
    assert sorted({fault["pointer"] for fault in event["errors"]}) == pointers
    assert all(fault["message"] for fault in event["errors"])
    assert event["org"] == ("" if "/org" in pointers else "acme")
    assert CREDENTIAL.decode() not in json.dumps(event)
    assert event["request"] == ""


async def test_an_unsupported_part_of_a_workflow_is_told_with_its_place(anybody: Outside) -> None:
    event = await rejected(anybody, workflow(EXPRESSION))
    (fault,) = event["errors"]
    assert (fault["pointer"], fault["line"]) == ("/workflow/jobs/build/steps/1/if", 7)
    assert fault["column"] > 0 and "github.ref" in fault["message"]


@pytest.mark.parametrize("part", ["strategy: {matrix: {os: [a, b]}}", "needs: other", "runs-on: windows-latest"])
async def test_what_comes_later_is_an_error_that_names_it(anybody: Outside, part: str) -> None:
    text = f"jobs:\n  build:\n    {part}\n    steps: [{{run: 'true'}}]\n  other:\n    steps: [{{run: 'true'}}]\n"
    (fault,) = (await rejected(anybody, workflow(text)))["errors"]
    assert fault["line"] == 3 and fault["column"] > 0
    assert part.partition(":")[0] in fault["message"] or "windows" in fault["message"]


async def test_a_session_that_nobody_could_enter_is_refused_before_it_starts(anybody: Outside) -> None:
    body = GOOD | {"id": uuid.uuid4().hex, "actor": "nobody", "ssh": {"pause": "at_end"}}
    event = await rejected(anybody, body)
    assert (event["code"], event["request"]) == ("ssh_no_key", body["id"])
    (fault,) = event["errors"]
    assert fault["pointer"] == "/ssh" and "nobody" in fault["message"] and "pitstop keys add" in fault["message"]


async def test_many_bad_ones_do_not_stop_a_good_one(anybody: Outside) -> None:
    for number in range(200):
        await anybody.publish(b'{"org": "flood", "project": %d}' % number)
    run = await anybody.request("true")
    assert await run.finished() == "success"
    await anybody.hear("run.rejected", 200, org="flood")


async def test_a_dead_letter_is_listed_shown_and_replayed_when_its_cause_is_gone(anybody: Outside) -> None:
    home = anybody.place.home
    body = GOOD | {"id": uuid.uuid4().hex, "org": "local", "actor": "carol", "ssh": {"pause": "at_end"}}
    event = await rejected(anybody, body)
    number = str(event["dead_letter"])
    (listed,) = [line for line in home.run("dlq", "ls").stdout.splitlines() if line.startswith(f"{number} ")]
    assert "run.requested" in listed and "no SSH key is registered for carol" in listed
    shown = home.run("dlq", "show", number).stdout
    assert body["id"] in shown and "no SSH key" in shown
    carol = [f"{anybody.place.person('carol').key}.pub"]
    assert home.run("keys", "add", *carol, env={"PITSTOP_ACTOR": "carol"}).returncode == 0
    assert home.run("dlq", "replay", number).returncode == 0
    queued = await anybody.hear("run.queued", request=body["id"])
    await anybody.hear("job.paused", run=queued["run"])
    assert home.run("cancel", queued["run"]).returncode == 0
    await anybody.hear("run.finished", run=queued["run"])


async def test_letters_of_another_org_are_nobodys_business(anybody: Outside) -> None:
    event = await rejected(anybody, GOOD | {"org": "rival", "project": 7})
    shown = await anybody.api("dlq-show", {"seq": event["dead_letter"]}, org="acme")
    assert shown["error"] == "not_found"


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name for name, text in logs.items() if "Traceback" in text} == set()
