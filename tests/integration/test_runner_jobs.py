"""Real jobs in real sandboxes: steps, pauses, entering, repair, and what the record says of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.jobs import JOB, address, driven, facts_of, run_of, step

from pitstop_common.messages import Resume, Stop
from pitstop_common.spec import PausePlan, SessionPolicy

ON_FAILURE = PausePlan(on_failure=True)


async def test_a_job_runs_its_steps_and_leaves_nothing(tmp_path: Path) -> None:
    run = run_of("echo one; echo two >&2", "exit 3", step("echo cleanup", condition="always"), "echo never")
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.runner.finished == "failure"
        assert job.store.log(1) == ["one", "two"]
        assert job.store.log(3) == ["cleanup"]
        report = job.store.report()
        assert [entry.result for entry in report.steps] == ["success", "failure", "success", "skip"]
        assert [entry.exit_code for entry in report.steps] == [0, 3, 0, None]
        assert job.store.chunks()[-1].kind == "end"
        assert job.store.types()[0] == "sandbox.ready" and job.store.types()[-1] == "job.finished"
        assert not (tmp_path / "job/holder").exists()


async def test_shells_and_flags_are_those_of_github(tmp_path: Path) -> None:
    run = run_of(
        step("false | true; echo $-", shell=""),
        step("echo $-; set -o | grep pipefail", shell="bash"),
        step("import os; print(os.environ['X'])", shell="python", env={"X": "py"}),
        step("pwd; umask", working_directory="sub/folder", shell="sh"),
        step("mkdir -p sub/folder", condition="always"),
        step("pwd; umask", working_directory="sub/folder", shell="sh", condition="always"),
    )
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert "e" in job.store.log(1)[0]
        assert "e" in job.store.log(2)[0] and job.store.log(2)[1].endswith("on")
        assert job.store.log(3) == ["py"]
        assert job.store.report().steps[3].result == "failure"
        assert job.store.log(6) == ["/home/runner/work/sub/folder", "0022"]


async def test_exports_reach_the_next_steps(tmp_path: Path) -> None:
    run = run_of(
        'echo A=1 >>$GITHUB_ENV; printf "B<<E\\nx\\ny\\nE\\n" >>$GITHUB_ENV; echo $HOME/bin >>$GITHUB_PATH; '
        'mkdir ~/bin; printf "#!/bin/sh\\necho mine\\n" >~/bin/tool; chmod +x ~/bin/tool',
        'echo "$A $B"; tool; ln -sf /etc/passwd $GITHUB_ENV',
        'echo "$A"; mkfifo $GITHUB_PATH.x; mv $GITHUB_PATH.x $GITHUB_PATH',
        "echo ${PATH##*:}",
    )
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.runner.finished == "success"
        assert job.store.log(2)[:3] == ["1 x", "y", "mine"]
        assert job.store.log(2)[3].startswith("::warning::GITHUB_ENV")
        assert job.store.log(3)[1].startswith("::warning::GITHUB_PATH")
        assert job.store.log(4) == ["/opt/pitstop/bin"]


async def test_fail_enter_repair_retry_exit(tmp_path: Path) -> None:
    """The main story: what the step saw is what the shell sees, and the record says who repaired it."""
    run = run_of(
        "echo SEEN=1 >>$GITHUB_ENV; sleep 300 & echo $! >background",
        step("env | sort >~/step.env; echo looking; test -e repaired", env={"OWN": "x y"}, name="the test"),
        'echo "$SEEN $FIXED"; kill -0 $(cat background) && echo alive',
        pause=ON_FAILURE,
    )
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        person = await job.enter()
        await job.exec(person, "env | sort >~/shell.env")
        _, differences = await job.exec(person, "diff ~/step.env ~/shell.env")
        assert differences.split("\n") == [differences.split("\n")[0], "> PITSTOP_SESSION=s1", ""]
        code, shown = await job.exec(person, "pitstop-step retry")
        assert (code.code, "looking" in shown) == (1, True)
        shown = await job.shell(person, "touch repaired; echo FIXED=2 >>$GITHUB_ENV; pitstop-step retry; echo code=$?")
        assert "code=0" in shown
        assert "the test" in shown and "exit code 1" in shown and "| looking" in shown and "exit" in shown
        await job.end()
        assert job.store.log(3) == ["1 2", "alive"]
        assert job.store.log(2, 3) == ["looking"]
        assert job.runner.finished == "success"
        second = job.store.report().steps[1]
        assert (second.attempts, second.choice, second.by, second.result) == (3, "retry", "ada", "success")
        resumed = job.store.last("job.resumed")
        assert (resumed["choice"], resumed["by"]) == ("continue", "ada")
        kinds = job.store.types()
        assert kinds.index("ssh.connected") < kinds.index("job.resumed") < kinds.index("job.finished")


async def test_an_interactive_shell_has_the_steps_environment_too(tmp_path: Path) -> None:
    run = run_of("env | sort >~/step.env; exit 1", pause=ON_FAILURE)
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        person = await job.enter()
        (job.folder / "home/.bashrc").write_text("export FROM_PROFILE=1\n")
        (job.folder / "home/.bash_profile").write_text("export FROM_PROFILE=1\n")
        shown = await job.shell(person, "env | sort >~/shell.env; diff ~/step.env ~/shell.env")
        added = sorted(line.strip()[2:] for line in shown.splitlines() if line.startswith("> "))
        assert added == ["PITSTOP_SESSION=s1", "TERM=dumb"]
        assert not [line for line in shown.splitlines() if line.startswith("< ")]
        await job.end()


async def test_a_session_needs_no_folder_of_the_step(tmp_path: Path) -> None:
    run = run_of(step("true", working_directory="missing"), pause=ON_FAILURE)
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        person = await job.enter()
        assert (await job.exec(person, "pwd"))[1] == "/home/runner/work\n"
        assert "missing" in job.store.log(0)[-5]
        await job.runner.stop(stop())
        await job.end()


def stop(**fields: str) -> Stop:
    return Stop(org="acme", run=JOB.partition("-")[0], job=JOB, attempt=1, result="cancellation", **fields)


async def test_stop_kills_everything_and_says_who_was_inside(tmp_path: Path) -> None:
    run = run_of("trap '' TERM; echo begun; sleep 300", pause=PausePlan(direct=True))
    async with driven(run, tmp_path / "job") as job:
        await job.until("stepping")
        await job.enter()
        while not job.store.log(1):
            await asyncio.sleep(0.01)
        await job.runner.stop(stop(reason="idle", notice="nobody typed for 15 min"))
        await job.end()
        assert "nobody typed for 15 min" in job.store.log(0)
        end = job.store.last("job.finished")
        assert (end["result"], end["reason"]) == ("cancellation", "idle")
        assert job.store.types()[-2:] == ["ssh.closed", "job.finished"]
        await job.runner.stop(stop())  # late: harmless


async def test_timeouts_end_the_tree_of_a_step(tmp_path: Path) -> None:
    run = run_of(
        step("trap 'echo ignored' TERM; (while :; do sleep 0.1; done) & echo $! >pid; while :; do sleep 0.1; done",
             timeout=0.4),
        step("kill -0 $(cat pid) 2>/dev/null && echo alive || echo gone", condition="always"),
    )  # fmt: skip
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.store.report().steps[0].result == "timeout"
        assert job.store.log(2) == ["gone"]
        assert job.runner.finished == "failure"


async def test_pause_before_after_and_at_the_end(tmp_path: Path) -> None:
    run = run_of("touch one", "touch two", "touch three", pause=PausePlan(after_step=1, before_step=3, at_end=True))
    async with driven(run, tmp_path / "job") as job:
        for there in ({"one"}, {"one", "two"}, {"one", "two", "three"}):
            await job.until("paused")
            assert {path.name for path in (job.folder / "work").iterdir()} == there
            await job.runner.resume(Resume(org="acme", run=JOB.partition("-")[0], job=JOB, attempt=1))
            await asyncio.sleep(0)
        await job.end()
        assert [fact["reason"] for fact in facts_of(job.store, "job.paused")] == ["after_step", "before_step", "at_end"]
        assert job.runner.finished == "success"


async def test_notices_say_how_to_enter_who_may_and_until_when(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8Z9pXWcWBhTpZqFkqg4yqkC4dTz4X0wLwXHwXxgS0B ada@laptop"
    run = run_of("exit 1", pause=ON_FAILURE, session=SessionPolicy(users=("bob",), keys=(key,)))
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        await job.runner.stop(stop())
        await job.end()
        said = "\n".join(job.store.log(0))
        for part in (address(JOB).command, "ada, bob", "SHA256:", "no network", "UTC", "namespaces"):
            assert part in said


async def test_masks_hold_in_the_log_and_for_later_steps(tmp_path: Path) -> None:
    run = run_of("echo '::add-mask::zebra'; echo a zebra; echo given", "echo zebra again")
    async with driven(run, tmp_path / "job", secrets={"GIVEN": "given"}) as job:
        await job.end()
        assert job.store.log(1) == ["a ***", "***"]
        assert job.store.log(2) == ["*** again"]


async def test_pitstop_step_outside_a_pause_says_so(tmp_path: Path) -> None:
    run = run_of("pitstop-step status && exit 9 || test $? = 2")
    async with driven(run, tmp_path / "job") as job:
        await job.end()
        assert job.runner.finished == "success"
        assert "not paused" in job.store.log(1)[0]


async def test_hostile_requests_do_no_harm(tmp_path: Path) -> None:
    run = run_of("exit 1", step("until test -e go; do sleep 0.02; done", condition="always"), pause=ON_FAILURE)
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        person = await job.enter()
        await job.exec(
            person,
            "cd /run/pitstop/requests; ln -s /etc/passwd a; mkfifo b; mkdir c; yes >d & sleep 0.1; kill $!; "
            "printf 'verb=explode\\n' >e; printf 'verb=status\\n' >'f f'; rm -rf ../replies; ln -s /etc ../replies; ",
        )
        code, shown = await job.exec(person, "pitstop-step status")
        assert code.code == 0 and "paused" in shown
        assert (await job.exec(person, "pitstop-step continue"))[0].code == 0
        (job.folder / "work/go").touch()
        await job.end()
        assert job.runner.finished == "failure"
        assert Path("/etc/ssl").is_dir()


async def test_ctrl_c_ends_a_retry(tmp_path: Path) -> None:
    run = run_of("echo started; test -e once && sleep 300; touch once; exit 1", pause=ON_FAILURE)
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        person = await job.enter()
        retry = asyncio.create_task(job.exec(person, "exec pitstop-step retry"))
        await job.until("retrying")
        while "started" not in job.store.log(1, 2):
            await asyncio.sleep(0.01)
        await job.exec(person, "kill -INT $(pgrep -f pitstop-step | head -1)")
        code, shown = await retry
        assert code.code != 0 and "failure" in shown
        await job.until("paused")
        await job.runner.stop(stop())
        await job.end()


async def test_a_job_without_a_sandbox_ends_with_the_reason(tmp_path: Path) -> None:
    from pitstop_sandbox.backends.namespaces import NamespacesBackend

    async with driven(run_of("true"), tmp_path / "job", backend=NamespacesBackend(bwrap="/bin/false")) as job:
        await job.end()
        assert job.store.types() == ["sandbox.failed", "job.finished"]
        assert job.runner.finished == "error"


@pytest.mark.parametrize("keys", [("key", "key"), ("output",), ("key", "output")])
async def test_activity_is_said(tmp_path: Path, keys: tuple[str, ...]) -> None:
    run = run_of("exit 1", pause=ON_FAILURE, session=SessionPolicy(idle_timeout=0.2))
    async with driven(run, tmp_path / "job") as job:
        await job.until("paused")
        await job.enter()
        for name in keys:
            getattr(job.runner, name)()
        wanted = len(keys) if keys[0] == "key" else 0
        while len(facts_of(job.store, "ssh.active")) < wanted:
            await asyncio.sleep(0.01)
        await job.runner.stop(stop())
        await job.end()
        assert len(facts_of(job.store, "ssh.active")) == wanted
