"""Pausing and resuming: where a job stops, what a shell finds there, and what lets the job go on."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.support.outside import PROMPT, Outside, Place, outside, running
from tests.cli_system import processes_of

OF_THE_SESSION = {"TERM", "PITSTOP_SESSION", "COLUMNS", "LINES"}
"""What a shell may have beside the step's environment."""
OF_BASH = {"_", "SHLVL", "PWD", "OLDPWD"}
"""What bash itself sets in every child."""
SURROUNDINGS = "pwd; umask; id -u; id -g; id -G; ulimit -a; ulimit -Ha; hostname; locale 2>/dev/null; env -0 | sort -z"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("pausing"), "--slots", "12") as made:
        yield made


@pytest.fixture
async def anybody(place: Place) -> AsyncIterator[Outside]:
    async with outside(place) as someone:
        yield someone


def names(event: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["name"], step["result"]) for step in event["report"]["steps"]]


# -- where ---------------------------------------------------------------------------------------------------------


async def test_after_step_n_and_not_before_the_next(anybody: Outside) -> None:
    run = await anybody.request("touch one", "touch two", "touch three", ssh={"pause": "after_step", "step": 2})
    event = await run.paused()
    assert (event["reason"], event["step"], event["exit_code"]) == ("after_step", 2, 0)
    assert (await run.ssh("ls")).out.split() == ["one", "two"]
    await run.exit()
    assert await run.finished() == "success"
    (resumed,) = run.all("job.resumed")
    assert (resumed["choice"], resumed["by"]) == ("continue", "ada")
    steps = await run.steps()
    assert [(step["result"], step["choice"], step["by"]) for step in steps] == [
        ("success", "", ""), ("success", "continue", "ada"), ("success", "", "")
    ]  # fmt: skip


async def test_on_failure_before_cleanup_and_what_failed_is_shown(anybody: Outside) -> None:
    run = await anybody.request(
        "echo fine",
        {"name": "test", "run": "echo looked at the answer; echo it is wrong >&2; exit 42"},
        "echo never",
        {"name": "tell", "run": "echo told", "if": "failure()"},
        {"name": "tidy", "run": "echo tidied", "if": "always()"},
        ssh={"pause": "on_failure"},
    )
    event = await run.paused()
    assert (event["reason"], event["step"], event["name"], event["exit_code"]) == ("on_failure", 2, "test", 42)
    assert event["so_far"] == "failure"
    assert not run.all("step.started", step=5), "the job stops before its cleanup"
    with run.shell() as screen:
        await screen.until("because step 2 failed")
        await screen.until("exit code 42")
        await screen.until("looked at the answer")
        await screen.until("it is wrong")
        await screen.until(PROMPT)
        screen.type("exit\n")
        await screen.ended()
    assert await run.finished() == "failure"
    (ended,) = run.all("job.finished")
    assert [result for _, result in names(ended)] == ["success", "failure", "skip", "success", "success"]
    assert ended["report"]["steps"][1]["choice"] == "continue"


async def test_a_step_that_may_fail_does_not_pause(anybody: Outside) -> None:
    run = await anybody.request({"run": "exit 1", "continue-on-error": True}, "true", ssh={"pause": "on_failure"})
    assert await run.finished() == "success"
    assert not run.all("job.paused")


async def test_a_step_that_runs_too_long_pauses_as_a_failed_one(anybody: Outside) -> None:
    run = await anybody.request({"run": "sleep 60", "timeout-minutes": 0.005}, ssh={"pause": "on_failure"})
    event = await run.paused()
    assert (event["reason"], names(event)[0][1]) == ("on_failure", "timeout")
    await run.exit()
    assert await run.finished() in {"failure", "timeout"}


async def test_at_the_end_whatever_the_result(anybody: Outside) -> None:
    good, bad = [await anybody.request(step, ssh={"pause": "at_end"}) for step in ("true", "false")]
    for run, result in ((good, "success"), (bad, "failure")):
        event = await run.paused()
        assert (event["reason"], event["so_far"]) == ("at_end", result)
        await run.exit()
        assert await run.finished() == result


async def test_direct_stops_nothing_and_waits_for_who_is_inside(anybody: Outside) -> None:
    begun = 'echo begun; until [ -e go ]; do sleep 0.05; done; echo "$STEP"'
    run = await anybody.request("mkdir sub", {"run": begun, "name": "busy", "env": {"STEP": "two"},
                                              "working-directory": "sub"}, ssh={"direct": True})  # fmt: skip
    await run.hear("step.started", step=2)
    with run.shell() as screen:
        await screen.until("step 2 of 2 (busy) is in progress")
        await screen.until("does not stop the job")
        screen.type("echo [$STEP] in ${PWD##*/}; touch go\n")
        await screen.until("[two] in sub")
        await run.hear("step.finished", step=2)
        assert (await run.paused())["reason"] == "direct"
        assert not run.all("job.finished"), "it waits for the shell"
        screen.type("exit\n")
        await screen.ended()
    assert await run.finished() == "success"


async def test_direct_that_nobody_entered_waits_the_connect_window(anybody: Outside) -> None:
    run = await anybody.request("true", ssh={"direct": True, "connect_window": 0.5})
    assert (await run.paused())["reason"] == "direct"
    assert await run.finished() == "success"
    assert run.all("session.expired")[0]["reason"] == "connect_window"


# -- what a shell finds there (B5) -----------------------------------------------------------------------------------


def parsed(told: str) -> tuple[str, dict[str, str]]:
    """Everything before the environment, and the environment."""
    head, _, rest = told.partition("--env--\n")
    return head, dict(entry.split("=", 1) for entry in rest.split("\0") if "=" in entry)


async def test_the_shell_has_what_the_step_had(anybody: Outside) -> None:
    look = SURROUNDINGS.replace("env -0", "echo --env--; env -0")
    step = {"name": "look", "id": "looker", "working-directory": "a/b", "env": {"MINE": "two words", "EMPTY": ""},
            "run": f"({look}) >seen; sleep 300 & echo $! >background"}  # fmt: skip
    run = await anybody.request(
        'mkdir -p a/b tools; echo "LATER=from a step" >>$GITHUB_ENV; echo "$PWD/tools" >>$GITHUB_PATH', step,
        env={"OF_THE_RUN": "1", "MULTI": "a\nb"}, ssh={"pause": "after_step", "step": 2},
    )  # fmt: skip
    await run.paused()
    for terminal in (True, False):
        if terminal:
            with run.shell() as screen:
                await screen.until("a/b$ ")
                screen.type(f"({look}) >/tmp/shell; echo wri''tten\n")
                await screen.until("written")
                screen.client.kill()
                await screen.ended()
        else:
            assert (await run.ssh(f"({look}) >/tmp/shell")).status == 0
        told = await run.ssh("cat seen; printf '\\n--\\n'; cat /tmp/shell")
        step_head, step_env = parsed(told.out.partition("\n--\n")[0])
        shell_head, shell_env = parsed(told.out.partition("\n--\n")[2])
        assert shell_head == step_head
        assert step_head.splitlines()[:2] == ["/home/runner/work/a/b", "0022"]
        for name in OF_BASH:
            step_env.pop(name, None), shell_env.pop(name, None)
        more = {name: shell_env.pop(name) for name in shell_env.keys() - step_env.keys()}
        assert shell_env == step_env
        assert more.keys() <= OF_THE_SESSION
        assert step_env["MINE"] == "two words" and step_env["LATER"] == "from a step"
        assert step_env["MULTI"] == "a\nb" and "/home/runner/work/tools" in step_env["PATH"]
    await run.cancel()
    await run.finished()


async def test_no_profile_and_no_rc_file_resets_anything(anybody: Outside) -> None:
    files = ".bashrc .bash_profile .profile .bash_login .bash_logout"
    evil = f"for file in {files}; do echo export SPOILT=yes >$HOME/$file; done"
    run = await anybody.request(f"{evil}\nexport BASH_ENV=$HOME/.bashrc", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    assert (await run.ssh("echo [$SPOILT]")).out == "[]\n"
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type("echo [$SPOILT]; exit\n")
        await screen.until("[]\r\n")
        await screen.ended()
    assert await run.finished() == "success"


async def test_processes_of_the_step_are_seen_and_live_on(anybody: Outside) -> None:
    beat = "(trap '' HUP; while :; do date +%s%N >beat; sleep 0.05; done) >/dev/null 2>&1 & echo $! >pid"
    check = 'before=$(cat beat); sleep 0.3; test "$before" != "$(cat beat)" && echo alive $(cat pid)'
    run = await anybody.request(beat, check, ssh={"pause": "after_step", "step": 1})
    await run.paused()
    pid = (await run.ssh("cat pid")).out.strip()
    seen = await run.ssh("ps -eo pid,comm || for p in /proc/[0-9]*; do echo ${p#/proc/} $(cat $p/comm); done")
    assert re.search(rf"^ *{pid} +bash$", seen.out, re.M), seen.out
    assert (await run.ssh(check)).out == f"alive {pid}\n"
    await run.exit()
    assert await run.finished() == "success"
    assert await run.log(2) == [f"alive {pid}"]


async def test_what_a_shell_exports_and_changes_is_seen_by_the_next_step(anybody: Outside) -> None:
    show = "echo $ADDED; cat made; helper; umask; pwd"
    run = await anybody.request("true", show, ssh={"pause": "after_step", "step": 1})
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type("echo ADDED=by-hand >>$GITHUB_ENV; echo new >made; umask 077; cd /tmp; export LOST=1\n")
        screen.type("mkdir ~/bin; printf '#!/bin/sh\\necho helped $LOST\\n' >~/bin/helper; chmod +x ~/bin/helper\n")
        screen.type("echo ~/bin >>$GITHUB_PATH; exit\n")
        await screen.ended()
    assert await run.finished() == "success"
    assert await run.log(2) == ["by-hand", "new", "helped", "0022", "/home/runner/work"]


# -- what lets it go on (B7) -----------------------------------------------------------------------------------------


async def test_retry_until_it_is_right_is_in_the_record(anybody: Outside) -> None:
    run = await anybody.request(
        {"name": "test", "run": "echo try; cat answer; grep -q 42 answer; test ! -t 1"}, "echo after",
        ssh={"pause": "on_failure"},
    )  # fmt: skip
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type("pitstop-step retry; echo code $?\n")
        await screen.until("code 1")
        screen.type("echo 42 >answer; pitstop-step retry; echo code $?\n")
        await screen.until("try\r\n")
        await screen.until("code 0")
        screen.type("pitstop-step status\n")
        await screen.until("3 tries")
        await screen.until("in: ada")
        screen.type("exit\n")
        await screen.ended()
    assert await run.finished() == "success"
    first, second = await run.steps()
    told = (first["result"], first["exit_code"], first["attempts"], first["choice"], first["by"])
    assert told == ("success", 0, 3, "retry", "ada")
    assert second["result"] == "success"
    assert await run.log(1, 3) == ["try", "42"], "as CI runs it: no terminal"
    home = anybody.place.home
    status = home.json("status", run.id, "--org", "acme")
    assert status["jobs"][0]["report"]["steps"][0]["attempts"] == 3
    assert "3 tries, retry by ada" in home.run("status", run.id, "--org", "acme").stdout


@pytest.mark.parametrize("leave", ["exit", "exit 7", "\x04", "kill -9 $$"], ids=["exit", "exit 7", "ctrl-d", "killed"])
async def test_the_end_of_the_last_shell_resumes_whatever_its_status(anybody: Outside, leave: str) -> None:
    run = await anybody.request("true", "echo resumed", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.type(leave if leave == "\x04" else f"{leave}\n")
        await screen.ended()
    assert await run.finished() == "success"
    assert await run.log(2) == ["resumed"]


async def test_skip_next_and_fail_as_words_over_ssh(anybody: Outside) -> None:
    run = await anybody.request(
        "exit 3", "touch two", "touch three", {"run": "echo cleaned", "if": "always()"}, ssh={"pause": "on_failure"}
    )
    await run.paused()
    assert (await run.ssh("retry")).status == 3, "that of the step"
    done = await run.ssh("skip")
    assert (done.status, done.err.split("; ")[0]) == (0, "step 1 counts as skipped")
    assert await run.finished() == "success"
    step = (await run.steps())[0]
    told = (step["result"], step["exit_code"], step["attempts"], step["choice"], step["by"])
    assert told == ("skip", 3, 2, "skip", "ada")


async def test_step_by_step_and_then_call_it_failed(anybody: Outside) -> None:
    run = await anybody.request(
        "true", "touch two", "touch three", {"run": "echo cleaned", "if": "always()"},
        ssh={"pause": "before_step", "step": 2},
    )  # fmt: skip
    event = await run.paused()
    assert (event["reason"], event["step"]) == ("before_step", 2)
    assert (await run.ssh("ls")).out == ""
    assert (await run.ssh("next")).status == 0
    event = await run.hear("job.paused", reason="after_step")
    assert (event["reason"], event["step"], (await run.ssh("ls")).out) == ("after_step", 2, "two\n")
    assert (await run.ssh("pitstop-step fail")).status == 0
    assert await run.finished() == "failure"
    assert [(step["result"], step["choice"]) for step in await run.steps()] == [
        ("success", ""), ("failure", "fail"), ("skip", ""), ("success", "")
    ]  # fmt: skip
    assert await run.log(4) == ["cleaned"]


async def test_env_shows_what_the_shell_has_changed_and_nothing_at_entry(anybody: Outside) -> None:
    step = {"run": "true", "env": {"KEPT": "1", "OLD": "2", "GONE": "3"}}
    run = await anybody.request(step, "true", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    for options in ((), ("-tt",)):
        entered = await run.ssh("pitstop-step env", options=options)
        assert (entered.status, entered.out) == (0, ""), options
    change = "export OLD=new ADDED=$'a\\nb'; unset GONE; pitstop-step env"
    assert (await run.ssh(change)).out == "+ADDED=a\\x0ab\n-GONE=3\n-OLD=2\n+OLD=new\n"
    await run.exit()
    assert await run.finished() == "success"


async def test_commands_never_resume(anybody: Outside) -> None:
    run = await anybody.request("true", "true", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    for command, options in (("exit 3", ()), ("true", ("-tt",)), ("bash -i", ()), ("kill -9 $$", ())):
        await run.ssh(command, options=options)
    for count in range(1, 5):
        await run.hear("ssh.closed", count)
    entry = await run.entry(lambda found: found["job"]["sessions"] == 0)
    assert entry["job"]["status"] == "paused" and not run.all("job.resumed")
    assert (await run.ssh("pitstop-step continue")).status == 0, "unless they say so"
    assert await run.finished() == "success"
    assert run.all("job.resumed")[0]["by"] == "ada"


async def test_of_two_shells_only_the_last_to_end_resumes(anybody: Outside) -> None:
    bob = anybody.place.person("bob")
    await anybody.api("keys-add", {"key": bob.public}, actor="bob")
    run = await anybody.request("true", "true", ssh={"pause": "after_step", "step": 1, "users": ["bob"]})
    await run.paused()
    with run.shell() as first, run.shell(person=bob) as second:
        await first.until(PROMPT)
        await second.until(PROMPT)
        first.type("exit\n")
        await first.ended()
        await run.hear("ssh.closed", user="ada")
        second.type("pitstop-step status\n")
        await second.until("after step 1")
        assert not run.all("job.resumed")
        second.type("exit\n")
        await second.ended()
    assert await run.finished() == "success"
    assert run.all("job.resumed")[0]["by"] == "bob"


async def test_a_connection_that_breaks_does_not_resume_and_the_window_starts_anew(anybody: Outside) -> None:
    run = await anybody.request("true", "true", ssh={"pause": "after_step", "step": 1, "connect_window": 60})
    first = await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        screen.client.send_signal(signal.SIGKILL)
        await screen.ended()
    closed = await run.hear("ssh.closed")
    assert closed["reason"] == "disconnect"
    again = await run.paused(2)
    assert again["ssh"]["expires"] > first["ssh"]["expires"]
    entry = await run.entry(lambda found: found["job"]["deadline_reason"] == "connect_window")
    assert entry["job"]["status"] == "paused" and entry["job"]["entered"]
    assert not run.all("job.resumed")
    await run.exit()
    assert await run.finished() == "success"


async def test_cancel_while_somebody_is_inside(anybody: Outside) -> None:
    run = await anybody.request("true", "true", ssh={"pause": "after_step", "step": 1})
    await run.paused()
    with run.shell() as screen:
        await screen.until(PROMPT)
        await run.cancel()
        await screen.until("cancelled by ada")
        await screen.ended()
    assert await run.finished() == "cancellation"
    assert [step["result"] for step in await run.steps()] == ["success", "skip"]
    assert (await run.hear("ssh.closed"))["reason"] in {"expired", "stopped"}


async def test_cancel_while_a_step_runs_kills_what_it_started(anybody: Outside) -> None:
    run = await anybody.request("trap '' TERM INT HUP; echo begun; sleep 611 & sleep 612")
    await run.hear("step.started")
    async with asyncio.timeout(20):
        while await run.log(1) != ["begun"]:
            await asyncio.sleep(0.05)
    assert processes_of(Path(run.id))
    await run.cancel()
    assert await run.finished() == "cancellation"
    await run.hear("job.finished")
    assert processes_of(Path(run.id)) == {}, "nothing of it runs"


async def test_a_shell_says_what_it_cannot_be(anybody: Outside) -> None:
    run = await anybody.request("true", ssh={"pause": "at_end"})
    await run.paused()
    with run.shell() as screen:
        await screen.until("root")  # B10: the entry says where one cannot become root
        await screen.until(PROMPT)
        screen.type("id -un; exit\n")
        await screen.until("runner")
        await screen.ended()
    await run.finished()


def test_the_log_of_decisions_is_proved(place: Place) -> None:
    assert place.home.json("verify")["wrong"] == []


def test_no_service_complained(place: Place) -> None:
    logs = {path.name: path.read_text() for path in (place.home.dir / "logs").glob("*.log")}
    assert {name: text for name, text in logs.items() if "Traceback" in text} == {}
