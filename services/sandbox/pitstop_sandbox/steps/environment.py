"""What a step, and a shell at its pause, finds around it: environment, folder, interpreter. Pure."""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from pitstop_common.spec import StepSpec
from pitstop_sandbox.events import Exports
from pitstop_sandbox.model import JobState
from pitstop_sandbox.steps.secret_values import NO_SECRETS, SecretValues

JOB_FOLDER: Final = "/run/pitstop"
BIN_FOLDER: Final = "/opt/pitstop/bin"
RCFILE: Final = f"{BIN_FOLDER}/pitstop.bashrc"
UMASK: Final = 0o022
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RESERVED: Final = frozenset({"continue", "retry", "skip", "fail", "next", "pause"})
"""Alone as a command of ssh, these are `pitstop-step` itself."""
FILES: Final = {
    "GITHUB_ENV": "env",
    "GITHUB_PATH": "path",
    "GITHUB_OUTPUT": "output",
    "GITHUB_STEP_SUMMARY": "summary",
}
_SUFFIX: Final = {"python": ".py", "pwsh": ".ps1"}


def surroundings(
    state: JobState, step: int, workspace: str, exports: Exports | None = None, secrets: SecretValues = NO_SECRETS
) -> dict[str, str]:
    """The environment of a step (0: of the job before its first). `exports`: what the current step has exported
    so far, on top of what those before it did; None: the step has only begun. Variables that the workflow, the job or
    the step sets stand above `secrets` of the same name."""
    layer = exports or Exports()
    spec = state.spec(step) if step else None
    base = _base(state, workspace)
    env = {**base, **secrets.env, **state.job.env, **state.env, **layer.env, **(spec.env if spec else {})}
    if spec is not None and spec.id:
        env["GITHUB_ACTION"] = spec.id
    env["PATH"] = _path(env.get("PATH") or _PATH, (*state.path, *layer.path))
    return {name: secrets.show(value) for name, value in env.items()}


def _base(state: JobState, workspace: str) -> dict[str, str]:
    run, home = state.run, posixpath.dirname(workspace)
    user = posixpath.basename(home)
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        **state.image_env,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "SHELL": next(iter(state.shells), "/bin/sh"),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_ACTOR": run.actor,
        "GITHUB_JOB": state.job.key,
        "GITHUB_REF": _full_ref(run.source.ref),
        "GITHUB_REF_NAME": run.source.ref.removeprefix("refs/heads/").removeprefix("refs/tags/"),
        "GITHUB_REPOSITORY": f"{run.org}/{run.project}",
        "GITHUB_RUN_ATTEMPT": str(state.attempt),
        "GITHUB_RUN_ID": run.run,
        "GITHUB_SHA": run.source.sha,
        "GITHUB_WORKSPACE": workspace,
        "RUNNER_TEMP": f"{JOB_FOLDER}/temp",
        "RUNNER_OS": "Linux",
        "PITSTOP": "true",
        "PITSTOP_JOB": state.job.job,
        "PITSTOP_ORG": run.org,
        "PITSTOP_PROJECT": run.project,
        "PITSTOP_RUN": run.run,
        **{name: f"{JOB_FOLDER}/github/{file}" for name, file in FILES.items()},
    }


def _full_ref(ref: str) -> str:
    return ref if not ref or ref.startswith("refs/") else f"refs/heads/{ref}"


def _path(base: str, added: Sequence[str]) -> str:
    entries = (*reversed(list(dict.fromkeys(added))), *base.split(":"))
    return ":".join((*(entry for entry in dict.fromkeys(entries) if entry and entry != BIN_FOLDER), BIN_FOLDER))


def folder(spec: StepSpec | None, workspace: str) -> str:
    """Where a step starts. `working-directory` counts from the workspace."""
    wanted = spec.working_directory if spec else ""
    return posixpath.normpath(posixpath.join(workspace, wanted))


def script_name(spec: StepSpec, tries: int) -> str:
    """The file the step's text is written to, in the `script` folder of the job folder."""
    return f"step-{spec.index}-{tries}{_SUFFIX.get(spec.shell, '.sh')}"


def interpreter(spec: StepSpec, script: str, shells: Sequence[str]) -> tuple[str, ...]:
    """How the step's script is run; the same flags as on GitHub."""
    bash = any(posixpath.basename(shell) == "bash" for shell in shells)
    if spec.shell == "bash":
        return ("bash", "--noprofile", "--norc", "-eo", "pipefail", script)
    if spec.shell == "python":
        return ("python3", script)
    if spec.shell == "pwsh":
        return ("pwsh", "-command", f". '{script}'")
    if "{0}" in spec.shell:
        return tuple(word.replace("{0}", script) for word in shlex.split(spec.shell))
    return ("bash", "-e", script) if bash and spec.shell == "" else ("sh", "-e", script)


def session_argv(argv: Sequence[str], shell: str, *, interactive: bool) -> tuple[str, ...]:
    """The program of a channel: a shell that reads no profile, so that nothing of the environment is reset; or the
    steering of the job, where one of its words is all there is."""
    if len(argv) == 3 and list(argv[:2]) == [shell, "-c"] and argv[2].strip() in RESERVED:
        return (f"{BIN_FOLDER}/pitstop-step", argv[2].strip())
    if not argv or argv[0] != shell or posixpath.basename(shell) != "bash":
        return tuple(argv) or (shell,)
    if len(argv) == 1:
        return (shell, "--noprofile", "--rcfile", RCFILE, "-i") if interactive else (shell, "--noprofile", "--norc")
    return (shell, "--noprofile", "--norc", *argv[1:])


def session_env(env: Mapping[str, str], session: str) -> dict[str, str]:
    """The step's environment, and who is in it."""
    return {**env, "PITSTOP_SESSION": session}
