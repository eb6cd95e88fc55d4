"""`pitstop run`, `ssh`, `status`, `logs` and the rest against the real system, with a real ssh."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli_system import SOUND, Home, Terminal, processes_of, up
from tests.patience import PATIENCE
from tests.whole_system import wait_until

SHOWING = """
jobs:
  build:
    steps:
      - uses: actions/checkout@v4
      - run: git status --short; cat new* || true
"""
FAILING = """
jobs:
  build:
    steps:
      - uses: actions/checkout@v4
      - name: test
        run: |
          echo "::group::looking"
          cat answer
          echo "::endgroup::"
          echo "::error file=answer,line=1::not 42"
          grep -q 42 answer
      - name: tidy
        if: always()
        run: echo tidied
"""
SLEEPING = """
jobs:
  build:
    steps:
      - name: sleep
        run: echo sleeping; sleep 60
"""
TWO = """
jobs:
  build:
    steps: [{run: "echo building"}]
  lint:
    steps: [{run: "echo linting"}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One system for the tests of this file: each makes its own runs."""
    made = Home(tmp_path_factory.mktemp("cli"))
    with up(made, "--slots", "8", "--org-slots", "2"):
        made.run("keys", "add", made.public)
        yield made
    assert processes_of(made.folder) == {}


@pytest.fixture(autouse=True)
def _nothing_left(home: Home) -> Iterator[None]:
    yield
    for run in home.json("ls")["runs"]:
        home.run("cancel", run["run"])
    wait_until(lambda: home.json("ls")["runs"] == [], PATIENCE)


def ssh(home: Home, printed: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Run the command line that the CLI printed, with this person's key: it must not ask anything."""
    argv = shlex.split(printed)
    return subprocess.run(
        [*argv[:-1], "-F", "none", "-i", str(home.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", argv[-1],
         *command],
        capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, env=home.env, check=False,
    )  # fmt: skip


def test_the_log_goes_to_stdout_and_the_exit_code_is_the_runs(home: Home) -> None:
    home.checkout(SOUND)
    done = home.run("run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-4:] == ["── 1. one", "one", "── 2. two", "two"]
    assert f"repo     {home.repo} at " in done.stderr
    assert "org      local, as ada" in done.stderr
    run = done.stderr.rpartition("run ")[2].split(":")[0]
    assert f"run      {run}" in done.stderr
    assert home.run("logs", run).stdout == done.stdout
    assert home.json("status", run)["run"]["result"] == "success"


def test_a_failure_is_exit_1_with_groups_and_errors_shown(home: Home) -> None:
    home.checkout(FAILING, answer="41\n")
    done = home.run("run")
    assert done.returncode == 1
    shown = done.stdout.splitlines()
    assert shown[shown.index("▸ looking") :] == [
        "▸ looking", "  41", "error: answer:1: not 42", "── 3. tidy", "tidied"
    ]  # fmt: skip


def test_what_is_not_committed_is_part_of_the_run_unless_asked_otherwise(home: Home) -> None:
    home.checkout(SHOWING)
    new = home.repo / "new file"
    try:
        new.write_text("not committed\n")
        done = home.run("run")
        assert "with 1 uncommitted file(s)" in done.stderr and "new file" in done.stderr
        assert "Applied a patch of 1 uncommitted file(s)" in done.stdout and "not committed" in done.stdout
        assert '?? "new file"' in done.stdout
        done = home.run("run", "--committed")
        assert "1 uncommitted file(s) are not part of the run, as asked" in done.stderr
        assert "not committed" not in done.stdout
        new.write_bytes(os.urandom(700_000))
        done = home.run("run")
        assert done.returncode == 2 and "too large to go with the run" in done.stderr
        assert "684 KiB  new file" in done.stderr and "pitstop run --committed" in done.stderr
    finally:
        new.unlink()


def test_from_any_folder_of_the_checkout(home: Home) -> None:
    deep = home.checkout(SOUND) / "a" / "b"
    deep.mkdir(parents=True)
    assert home.run("run", cwd=deep).returncode == 0


def test_off_a_terminal_stdout_is_the_one_ssh_command_and_it_works(home: Home) -> None:
    home.checkout(FAILING, answer="41\n")
    with home.start("run", "--ssh-on-failure") as running:
        printed = running.line().strip()
        looked = ssh(home, printed, "pwd; cat answer; pitstop-step status")
        assert looked.stdout.splitlines()[:2] == ["/home/runner/work", "41"], looked
        job = printed.rpartition(" ")[2].partition("@")[0]
        assert ssh(home, printed, "echo 42 > answer && pitstop-step retry").returncode == 0
        ssh(home, printed, "pitstop-step continue")
        code, stdout, stderr = running.end()
    assert stdout == "", "stdout is exactly one line"
    assert code == 0, stderr
    assert "tidied" in stderr
    step = home.json("status", job)["jobs"][0]["report"]["steps"][1]
    assert (step["result"], step["attempts"], step["choice"], step["by"]) == ("success", 2, "retry", "ada")


def test_on_a_terminal_it_connects_by_itself_and_follows_afterwards(home: Home) -> None:
    home.checkout(SOUND)
    terminal = Terminal(home, "run", "--ssh-after-step", "1", "--ssh-key", home.public)
    terminal.wait_for(":~/work$ ")
    terminal.type("echo it-is-$((40+2)); exit\n")
    terminal.wait_for("it-is-42")
    assert terminal.end() == 0, terminal.seen
    after = terminal.seen.rpartition("it-is-42")[2]
    assert "── 2. two" in after and "success" in after


def test_direct_opens_a_terminal_while_the_job_runs(home: Home) -> None:
    home.checkout(SLEEPING.replace("sleep 60", "while ! test -e done; do sleep 0.1; done"))
    terminal = Terminal(home, "run", "--ssh", "--ssh-key", home.public)
    terminal.wait_for("$ ")
    terminal.type("touch done; exit\n")
    assert terminal.end() == 0, terminal.seen


def test_ctrl_c_off_a_terminal_leaves_the_run(home: Home) -> None:
    home.checkout(SLEEPING)
    with home.start("run") as running:
        assert any("sleeping" in line for line in iter(running.line, ""))
        run = home.json("ls")["runs"][0]["run"]
        running.process.send_signal(signal.SIGINT)
        code, _, stderr = running.end()
    assert code == 130, stderr
    assert f"pitstop logs -f {run}" in stderr
    assert home.json("status", run)["run"]["status"] == "running"


def test_ctrl_c_on_a_terminal_asks_once_and_the_second_cancels(home: Home) -> None:
    home.checkout(SLEEPING)
    terminal = Terminal(home, "run")
    terminal.wait_for("sleeping")
    terminal.type("\x03")
    terminal.wait_for("Ctrl-C again (or y) cancels it, Enter leaves it running")
    terminal.type("\x03")
    assert terminal.end() == 6, terminal.seen


def test_enter_after_ctrl_c_leaves_the_run(home: Home) -> None:
    home.checkout(SLEEPING)
    terminal = Terminal(home, "run")
    terminal.wait_for("sleeping")
    terminal.type("\x03")
    terminal.wait_for("Enter leaves it running")
    terminal.type("\n")
    assert terminal.end() == 130, terminal.seen
    assert len(home.json("ls")["runs"]) == 1


def test_json_of_a_run_is_one_object_a_line(home: Home) -> None:
    home.checkout(SOUND)
    with home.start("run", "--ssh-at-end", "-o", "json") as running:
        accepted, waiting = json.loads(running.line()), json.loads(running.line())
        assert accepted["event"] == "accepted" and set(accepted["jobs"]) == {"build"}
        assert (waiting["event"], waiting["job"]) == ("waiting", accepted["jobs"]["build"])
        assert waiting["ssh"]["user"] == waiting["job"]
        home.run("cancel", accepted["run"])
        code, stdout, _ = running.end()
    finished = json.loads(stdout)
    assert (finished["event"], finished["exit_code"]) == ("finished", code)


def test_ssh_info_and_a_command_whose_exit_code_is_passed_on(home: Home) -> None:
    home.checkout(SOUND)
    run = home.request("--ssh-after-step", "1")
    info = home.json("ssh", run, "--info")
    job = info["job"]
    assert {"host", "port", "user", "command", "known_hosts", "expires", "fingerprint", "run"} <= set(info)
    assert info["user"] == job and info["expires"]
    assert info["command"] == f"ssh -p {info['port']} {job}@{info['host']}"
    off_terminal = home.run("ssh", run).stdout
    assert off_terminal.count("\n") == 1 and "StrictHostKeyChecking=yes" in off_terminal
    identity = ("-i", str(home.key))
    done = home.run("ssh", job, *identity, "--", "sh", "-c", "'echo out; echo err >&2; exit 7'")
    assert (done.returncode, done.stdout) == (7, "out\n"), done.stderr
    assert "err" in done.stderr
    assert "lets in ada" in home.run("status", run).stdout
    assert home.run("ssh", job, "-i", "/dev/null", "--", "true").returncode == 255


def test_ssh_waits_for_a_queued_job_and_says_its_place(home: Home) -> None:
    home.checkout(SOUND)
    first, second = (home.request("--ssh-after-step", "1") for _ in range(2))
    home.paused(first)
    home.paused(second)
    third = home.request("--ssh-after-step", "1")
    entry = home.json("status", third)["jobs"][0]
    assert (entry["job"]["status"], entry["position"], entry["limit"], entry["used"]) == ("queued", 1, 2, 2)
    page = home.run("status", third).stdout
    assert "queued, position 1: " in page and "ssh -p" not in page
    with home.start("ssh", third, "--info", "-o", "json") as waiting:
        assert "queued, position 1" in waiting.progress()
        home.run("cancel", first)
        _, stdout, stderr = waiting.end()
    assert json.loads(stdout)["run"] == third, stderr


def test_slots_are_listed_with_since_idle_and_until(home: Home) -> None:
    home.checkout(SOUND)
    run = home.request("--ssh-at-end")
    entry = home.paused(run)
    page = home.run("status", run).stdout
    assert "holds 1 of 2 slots of local until " in page
    listed = home.run("ls", "--ssh")
    (row,) = listed.stdout.splitlines()[1:]
    assert row.split()[:5] == [entry["job"]["job"], "repo", "build", "ada", "paused"]
    assert "(connect_window)" in row
    assert "1 of 2 slots of local in use, 1 of them for sessions" in listed.stderr


def test_logs_follow_to_the_end_and_name_the_jobs(home: Home) -> None:
    home.checkout(TWO)
    run = home.request()
    done = home.run("logs", "-f", run)
    assert done.returncode == 0
    assert {"build | building", "lint  | linting"} <= set(done.stdout.splitlines())
    only = home.run("logs", run, "--job", "lint").stdout
    assert "linting" in only.splitlines() and "building" not in only
    chunks = [json.loads(line) for line in home.run("logs", run, "-o", "json").stdout.splitlines()]
    assert {chunk["kind"] for chunk in chunks} == {"notice", "output", "end"}
    ambiguous = home.run("ssh", run)
    assert ambiguous.returncode == 2 and "has 2 jobs" in ambiguous.stderr


def test_what_is_not_there_is_exit_5_with_the_next_command(home: Home) -> None:
    for command in (("status",), ("logs",), ("ssh",), ("cancel",)):
        done = home.run(*command, "aaaaaaaaaaaa")
        assert done.returncode == 5, (command, done.stderr)
        assert "there is no run aaaaaaaaaaaa" in done.stderr
    assert home.run("dlq", "show", "999").returncode == 5


def test_an_ended_job_says_so(home: Home) -> None:
    home.checkout(SOUND)
    job = home.run("run").stderr.partition("build (")[2].partition(")")[0]
    done = home.run("ssh", job)
    assert done.returncode == 5 and f"job {job} has ended (success)" in done.stderr


def test_a_run_that_offers_no_session_says_so(home: Home) -> None:
    home.checkout(SLEEPING)
    run = home.request()
    wait_until(lambda: "sleeping" in home.run("logs", run).stdout, PATIENCE)
    done = home.run("ssh", run)
    assert done.returncode == 2 and "offers no session" in done.stderr


def test_keys_are_added_listed_and_removed(home: Home, tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "spare key", "-f", extra], check=True)
    added = home.run("keys", "add", "-", stdin=Path(f"{extra}.pub").read_text())
    assert added.returncode == 0 and "spare key" in added.stderr
    assert [key["comment"] for key in home.json("keys", "ls")["keys"]].count("spare key") == 1
    assert home.run("keys", "rm", f"{extra}.pub").returncode == 0
    assert "spare key" not in home.run("keys", "ls").stdout
    assert home.run("keys", "rm", f"{extra}.pub").returncode == 5
    private = home.run("keys", "add", str(extra))
    assert private.returncode == 2 and "private key" in private.stderr and f"{extra}.pub" in private.stderr


def test_ssh_without_any_key_is_refused_before_anything_runs(home: Home) -> None:
    home.checkout(SOUND)
    home.env["PITSTOP_ACTOR"] = "nobody-yet"
    try:
        done = home.run("run", "--ssh-at-end")
    finally:
        home.env["PITSTOP_ACTOR"] = "ada"
    assert done.returncode == 4, done.stderr
    assert "pitstop keys add" in done.stderr
    assert home.json("ls")["runs"] == []


def test_a_bad_message_is_kept_shown_and_replayed(home: Home) -> None:
    import asyncio

    from pitstop_common.bus import connected

    async def publish() -> None:
        async with connected(json.loads((home.dir / "client.json").read_text())["nats"], "test") as bus:
            await bus.store("run.requested", b'{"org": "local", "project": 7}')

    asyncio.run(publish())
    wait_until(lambda: home.json("dlq", "ls")["letters"] != [], PATIENCE)
    (letter,) = home.json("dlq", "ls")["letters"]
    assert "must be text" in home.run("dlq", "ls").stdout
    assert '"project": 7' in home.run("dlq", "show", str(letter["seq"])).stdout
    assert home.run("dlq", "replay", str(letter["seq"])).returncode == 0
    wait_until(lambda: len(home.json("dlq", "ls")["letters"]) == 2, PATIENCE)


def test_the_log_of_decisions_is_proved(home: Home) -> None:
    assert home.run("verify").returncode == 0
    assert home.json("verify")["wrong"] == []


def test_the_doctor_says_which_key_lets_in_and_which_does_not(home: Home) -> None:
    home.checkout(SOUND)
    job = home.paused(home.request("--ssh-at-end"))["job"]["job"]
    good = home.json("doctor", "ssh", job, "-i", str(home.key))
    assert good["ok"] and [check["state"] for check in good["checks"]] == ["ok"] * 5
    assert good["checks"][2]["found"].endswith(f"({home.key}): lets you in as ada")
    other = home.folder / "unregistered"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    done = home.run("doctor", "ssh", job, "-i", str(other))
    assert done.returncode == 1
    assert f"({other}): not registered" in done.stdout and f"fix: pitstop keys add {other}.pub" in done.stdout


def test_the_doctor_finds_all_well(home: Home) -> None:
    found = home.json("doctor")
    assert found["ok"], found
    assert {"sandbox", "jetstream", "services", "clock", "relay"} <= {check["name"] for check in found["checks"]}


def test_a_wrong_credential_is_exit_4(home: Home) -> None:
    url = json.loads((home.dir / "client.json").read_text())["nats"]
    wrong = url.replace(url.split(":")[2].partition("@")[0], "wrong")
    done = home.run("ls", "--nats", wrong)
    assert done.returncode == 4, done.stderr
    assert "wrong" not in done.stderr


def test_local_starts_a_system_for_one_run_and_removes_it(home: Home) -> None:
    home.checkout(FAILING, answer="41\n")
    home.env["TMPDIR"] = str(home.folder / "tmp")
    (home.folder / "tmp").mkdir(exist_ok=True)
    try:
        with home.start("run", "--local", "--ssh-on-failure") as running:
            printed = running.line().strip()
            fix = "echo 42 > answer && pitstop-step retry && pitstop-step continue"
            ssh_there = [*shlex.split(printed), fix]
            subprocess.run(ssh_there, capture_output=True, timeout=30, stdin=subprocess.DEVNULL, check=False)
            code, _, stderr = running.end()
        assert code == 0, stderr
        assert list((home.folder / "tmp").iterdir()) == []
        assert processes_of(home.folder / "tmp") == {}
    finally:
        del home.env["TMPDIR"]
