"""The published schemas are those of the types, and the examples are good by both."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from pitstop_common import api, schema, subjects
from pitstop_common.asyncapi import document
from pitstop_common.messages import Event, Fact
from pitstop_scheduler import reading
from pitstop_scheduler.request import read_request

SCHEMAS = Path(__file__).parents[2] / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples").glob("*.json"))


def name_of(example: Path) -> str:
    """`run.requested.smallest.json` -> `run.requested`."""
    names = [name for name in schema.types() if example.stem == name or example.stem.startswith(f"{name}.")]
    return max(names, key=len)


def test_the_committed_schemas_are_those_of_the_types() -> None:
    assert not list(schema.drift(SCHEMAS)), "run: python -m pitstop_common.schema write schemas"


def test_the_same_types_give_the_same_bytes() -> None:
    assert schema.files() == schema.files()


def test_drift_is_shown_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert schema.main(["write", str(tmp_path)]) == 0
    assert schema.main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().err == ""
    changed = tmp_path / "v1" / "run.requested.json"
    changed.write_text(changed.read_text().replace('"priority"', '"urgency"'))
    shutil.copy(changed, tmp_path / "v1" / "run.renamed.json")
    assert schema.main(["check", str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert '-        "urgency"' in told and '+        "priority"' in told
    assert "--- there/v1/run.renamed.json" in told and "pitstop_common.schema write" in told
    assert schema.main(["write", str(tmp_path)]) == 0
    assert schema.main(["check", str(tmp_path)]) == 0
    assert schema.main(["check"]) == 2


def test_every_schema_is_a_schema() -> None:
    for name, type_ in schema.types().items():
        Draft202012Validator.check_schema(schema.json_schema(name, type_))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_decode(example: Path) -> None:
    name = name_of(example)
    type_ = schema.types()[name]
    value = json.loads(example.read_text())
    Draft202012Validator(schema.json_schema(name, type_)).validate(value)
    decoded = msgspec.json.decode(example.read_bytes(), type=type_)
    assert (
        msgspec.to_builtins(decoded).items() >= {k: v for k, v in value.items() if k in ("org", "run", "job")}.items()
    )
    if name == "run.requested":
        assert read_request(example.read_bytes(), headers={}, org_of_subject="acme").jobs


def test_there_are_examples_of_what_others_send_and_listen_to() -> None:
    told = {name_of(example) for example in EXAMPLES}
    assert told >= {"run.requested", "run.rejected", "sandbox.ready", "ssh.connected", "job.paused", "session.expired"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"steps": None}, "null"), ({"workflow": "jobs: {}"}, "both"), ({"org": "A"}, "letters"),
        ({"id": "x" * 129}, "long"),
        ({"ssh": {"pause": "now"}}, "unknown"), ({"env": {"A": 1}}, "number"), ({"ssh": {"idle_timeout": 0}}, "zero"),
    ],
)  # fmt: skip
def test_the_schema_of_the_request_refuses(change: dict[str, Any], why: str) -> None:
    body = json.loads((SCHEMAS / "examples" / "run.requested.smallest.json").read_text())
    validator = Draft202012Validator(json.loads((SCHEMAS / "v1" / "run.requested.json").read_text()))
    assert validator.is_valid(body)
    assert not validator.is_valid(body | change), why


def test_every_subject_has_a_type() -> None:
    assert set(schema.tagged(Fact)) == set(subjects.FACTS)
    assert set(schema.tagged(Event)) == set(subjects.EVENTS)


def test_references_and_parameters_of_the_asyncapi_document_resolve() -> None:
    made = document()
    for reference in re.findall(r'"\$ref": "(#[^"]*)"', json.dumps(made)):
        value: Any = made
        for part in reference.split("/")[1:]:
            value = value[part]
    for channel in made["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"] or "")) == set(channel.get("parameters", {}))


def test_the_asyncapi_document_names_every_bare_subject_and_verb() -> None:
    addresses = {channel["address"] for channel in document()["channels"].values()}
    bare = {subjects.RUN_REQUESTED, *schema.tagged(Fact), *schema.tagged(Event)}
    assert addresses >= bare | {f"{type_}.{{org}}.{{run}}" for type_ in bare - {subjects.RUN_REQUESTED}}
    assert addresses >= {subjects.api("{org}", "{actor}", verb) for verb in api.VERBS}


@pytest.mark.parametrize("name", ["JobStatusView", "RunStatusView"])
def test_the_scheduler_answers_in_the_published_form(name: str) -> None:
    assert msgspec.json.schema(getattr(reading, name)) == msgspec.json.schema(getattr(api, name))
