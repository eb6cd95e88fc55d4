"""`pitstop exec`: one command in a job, as scripts and agents use it."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator

import pytest
from tests.cli_system import Home, processes_of, up

PAUSED = """
jobs:
  build:
    env: {COLOUR: teal}
    steps: [{run: "echo kept > file"}, {run: "echo end"}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("exec"))
    with up(made):
        made.run("keys", "add", made.public)
        yield made
    assert processes_of(made.folder) == {}


@pytest.fixture(scope="module")
def job(home: Home) -> str:
    """Paused after its first step, for all tests."""
    home.checkout(PAUSED)
    return str(home.paused(home.request("--ssh-after-step", "1"))["job"]["job"])


def told(home: Home, job: str, *words: str, code: int = 0, **more: str) -> dict[str, object]:
    done = home.run("exec", "-i", str(home.key), "-o", "json", *more.values(), job, "--", *words)
    assert done.returncode == code, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    assert found.pop("job") == job and found.pop("run") == job.rpartition("-")[0]
    assert float(str(found.pop("seconds"))) > 0
    return found


def test_json_has_both_streams_and_the_exit_code(home: Home, job: str) -> None:
    line = 'echo "$COLOUR"; cat file; echo bad >&2; exit 7'
    assert told(home, job, line, code=7) == {
        "command": line, "exit_code": 7, "signalled": False, "timed_out": False, "stdout": "teal\nkept\n",
        "stderr": "bad\n", "truncated": False,
    }  # fmt: skip


def test_several_words_are_a_program_and_its_arguments(home: Home, job: str) -> None:
    assert told(home, job, "printf", "%s|", "a b", "$COLOUR", "*")["stdout"] == "a b|$COLOUR|*|"


def test_255_of_the_command_is_told_from_255_of_the_connection(home: Home, job: str) -> None:
    assert told(home, job, "exit 255", code=255)["exit_code"] == 255
    other = home.folder / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    done = home.run("exec", "-i", str(other), "-o", "json", job, "--", "true")
    assert (done.returncode, done.stdout) == (255, "")
    assert "is not registered" in done.stderr and "pitstop keys add" in done.stderr
    assert f"pitstop ssh {job}" in done.stderr


def test_what_is_no_text_comes_as_base64(home: Home, job: str) -> None:
    found = told(home, job, r"printf '\377\000x'")
    assert base64.b64decode(str(found["stdout_base64"])) == b"\xff\0x"
    assert "stdout" not in found


def test_a_long_output_is_cut_and_the_command_goes_on(home: Home, job: str) -> None:
    found = told(home, job, "seq 1 1000000; echo done > end; exit 3", code=3)
    assert (found["exit_code"], found["truncated"], len(str(found["stdout"]))) == (3, True, 4 * 1024 * 1024)
    assert told(home, job, "cat end")["stdout"] == "done\n"


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(home: Home, job: str) -> None:
    done = home.run("exec", "-i", str(home.key), "-o", "json", "--timeout", "2s", job, "--", "echo up; sleep 4711")
    found = json.loads(done.stdout)
    assert (done.returncode, found["timed_out"], found["exit_code"], found["stdout"]) == (124, True, None, "up\n")
    gone = "until ! grep -qs 'sleep.4711' /proc/[0-9]*/cmdline; do sleep 0.05; done"
    assert told(home, job, gone.replace("sleep.4711", "[s]leep.4711"))["exit_code"] == 0


def test_a_command_that_a_signal_ended_has_no_exit_code(home: Home, job: str) -> None:
    found = told(home, job, "kill -9 $$", code=255)
    assert (found["exit_code"], found["signalled"]) == (None, True)


def test_off_json_streams_and_status_pass_as_they_are(home: Home, job: str) -> None:
    done = home.run("exec", "-i", str(home.key), "--stdin", job, "--", "cat; echo bad >&2; exit 9", stdin="typed")
    assert (done.returncode, done.stdout, done.stderr) == (9, "typed", "bad\n")
    assert home.run("exec", "-i", str(home.key), job, "--", "cat", stdin="typed").stdout == ""


def test_the_job_stays_paused(home: Home, job: str) -> None:
    told(home, job, "true")
    assert home.json("status", job)["jobs"][0]["job"]["status"] == "paused"


def test_a_job_that_is_not_there_is_named(home: Home) -> None:
    done = home.run("exec", "nosuchrun-1", "--", "true")
    assert done.returncode == 5 and "nosuchrun" in done.stderr and done.stdout == ""
