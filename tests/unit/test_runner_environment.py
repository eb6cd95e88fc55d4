"""What a step finds around it, layer on layer."""

from __future__ import annotations

import msgspec

from pitstop_common.spec import JobSpec, RunSpec, Source, StepSpec
from pitstop_sandbox.events import Exports
from pitstop_sandbox.model import JobState, begin
from pitstop_sandbox.steps import environment

WORK = "/home/runner/work"


def state(**step: object) -> JobState:
    spec = StepSpec(index=1, name="one", **step)  # type: ignore[arg-type]
    job = JobSpec(job="aaaaaaaaaaaa-1", key="build", name="build", steps=(spec,), env={"A": "job", "B": "job"})
    source = Source(git="https://example.org/x.git", ref="main", sha="f" * 40)
    run = RunSpec(run="aaaaaaaaaaaa", org="acme", project="web", request="r", actor="ada", jobs=(job,), source=source)
    return msgspec.structs.replace(begin(run, job, 2), shells=("/usr/bin/bash", "/usr/bin/sh"))


def test_later_layers_win() -> None:
    now = msgspec.structs.replace(state(env={"C": "step"}), env={"B": "export", "C": "export"})
    env = environment.surroundings(now, 1, WORK)
    assert (env["A"], env["B"], env["C"]) == ("job", "export", "step")


def test_the_names_that_scripts_rely_on() -> None:
    env = environment.surroundings(state(id="test"), 1, WORK)
    assert env["CI"] == env["GITHUB_ACTIONS"] == env["PITSTOP"] == "true"
    assert env["GITHUB_WORKSPACE"] == WORK
    assert env["HOME"] == "/home/runner" and env["USER"] == "runner"
    assert env["GITHUB_REPOSITORY"] == "acme/web"
    assert env["GITHUB_REF"] == "refs/heads/main" and env["GITHUB_SHA"] == "f" * 40
    assert env["GITHUB_RUN_ATTEMPT"] == "2"
    assert env["GITHUB_ACTION"] == "test"


def test_path_is_prepended_newest_first_and_ends_with_ours() -> None:
    now = msgspec.structs.replace(state(), path=("/first", "/second"))
    path = environment.surroundings(now, 1, WORK, Exports(path=("/third",)))["PATH"].split(":")
    assert path[:3] == ["/third", "/second", "/first"]
    assert path[-1] == environment.BIN_FOLDER
    assert path.count(environment.BIN_FOLDER) == 1


def test_interpreters_are_those_of_github() -> None:
    shells = ("/usr/bin/bash", "/usr/bin/sh")

    def run(shell: str, there: tuple[str, ...] = shells) -> tuple[str, ...]:
        return environment.interpreter(StepSpec(index=1, name="x", shell=shell), "/s", there)

    assert run("") == ("bash", "-e", "/s")
    assert run("", ("/bin/sh",)) == ("sh", "-e", "/s")
    assert run("bash") == ("bash", "--noprofile", "--norc", "-eo", "pipefail", "/s")
    assert run("sh") == ("sh", "-e", "/s")
    assert run("python") == ("python3", "/s")
    assert run("pwsh") == ("pwsh", "-command", ". '/s'")


def test_working_directory_counts_from_the_workspace() -> None:
    assert environment.folder(StepSpec(index=1, name="x", working_directory="a/../b"), WORK) == f"{WORK}/b"
    assert environment.folder(None, WORK) == WORK


def test_a_session_shell_reads_no_profile() -> None:
    bash = "/usr/bin/bash"
    assert "--noprofile" in environment.session_argv([bash], bash, interactive=True)
    assert environment.session_argv([bash, "-c", "x"], bash, interactive=False) == (
        bash, "--noprofile", "--norc", "-c", "x",
    )  # fmt: skip
    assert environment.session_argv(["/bin/sh"], "/bin/sh", interactive=True) == ("/bin/sh",)
    assert environment.session_argv(["ls"], bash, interactive=False) == ("ls",)
