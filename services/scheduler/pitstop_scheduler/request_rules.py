"""What the fields of a request mean together: source, session policy, jobs, and where they pause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from pitstop_common.faults import Faults
from pitstop_common.limits import MAX_SPEC_BYTES
from pitstop_common.patches import BadPatch, unpack
from pitstop_common.public_keys import BadKey, parse_public_key
from pitstop_common.requests import RunRequest, SourceRequest, SshRequest
from pitstop_common.spec import JobSpec, PausePlan, SessionPolicy, Source
from pitstop_common.workflow import StepNotFound, find_step, read_request_steps, read_workflow

STEPS_JOB: Final = "job"
"""Key of the only job of a request that lists its steps itself."""

_SCHEMES: Final = ("https", "http", "ssh", "git", "file")
_SCP_LIKE: Final = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!//)[^-\s][^\s]*\Z")
_REF: Final = re.compile(r"(?!-)(?!.*\.\.)[^\x00-\x20\x7f~^:?*\[\\]*\Z")
_SECRET_IN_QUERY: Final = re.compile(r"(?:^|&)[^=&]*(?:token|secret|password|key)[^=&]*=", re.IGNORECASE)


def source_of(source: SourceRequest, faults: Faults) -> Source:
    """Where checkout takes the tree from. Faults never repeat the URL: it may hold a token."""
    _check_patch(source, faults)
    if message := _bad_git(source.git):
        faults.add(("source", "git"), message)
    if not _REF.match(source.ref):
        faults.add(("source", "ref"), "cannot be the name of a branch or a tag")
    if not source.git and (source.ref or source.sha):
        faults.add(("source", "git"), "is missing; `ref` and `sha` are of no use without it")
    return Source(git=source.git, ref=source.ref, sha=source.sha, patch=source.patch,
                  patch_encoding=source.patch_encoding)  # fmt: skip


def _check_patch(source: SourceRequest, faults: Faults) -> None:
    if not source.patch:
        return
    if not source.sha:
        faults.add(("source", "sha"), "is missing; a patch fits one commit, and this says which")
    try:
        patch = unpack(source.patch, source.patch_encoding)
    except BadPatch as error:
        faults.add(("source", "patch"), str(error))
        return
    if not patch.startswith(b"diff --git "):
        faults.add(("source", "patch"), "is no diff of git: it should begin with `diff --git`")


def _bad_git(url: str) -> str:
    if not url or url.startswith("/"):
        return ""
    if "://" not in url:
        return "" if _SCP_LIKE.match(url) else "must be a URL, or an absolute path on the host"
    try:
        parts = urlsplit(url)
        host, user, password = parts.hostname, parts.username, parts.password
    except ValueError:
        return "is not a URL that can be read"
    if parts.scheme not in _SCHEMES:
        return f"must begin with one of {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
    if password is not None or (user is not None and parts.scheme != "ssh") or _SECRET_IN_QUERY.search(parts.query):
        return "holds a credential; give the URL without it (it would stand in events and logs)"
    if parts.scheme != "file" and (not host or host.startswith("-")):
        return "names no host"
    return ""


def policy_of(ssh: SshRequest, faults: Faults) -> SessionPolicy:
    """Who may enter and for how long. Keys become `<type> <base64>`, each once."""
    keys: list[str] = []
    for i, text in enumerate(ssh.keys):
        try:
            keys.append(parse_public_key(text).line)
        except BadKey as error:
            faults.add(("ssh", "keys", i), str(error))
    return SessionPolicy(
        users=tuple(dict.fromkeys(ssh.users)), keys=tuple(dict.fromkeys(keys)), on_expiry=ssh.on_expiry,
        connect_window=ssh.connect_window, idle_timeout=ssh.idle_timeout,
        max_duration=0 if ssh.max_duration is UNSET else ssh.max_duration,
    )  # fmt: skip


def jobs_of(request: RunRequest, body: dict[str, Any], faults: Faults) -> tuple[JobSpec, ...]:
    """The jobs of the workflow or of the steps, without ids. `body`: the steps are read as they came."""
    if ("workflow" in body) == ("steps" in body):
        both = "; it has both" if "steps" in body else ""
        faults.add((), f"must have one of `workflow`, `steps` and `rerun_of`{both}")
        return ()
    if "steps" in body:
        if request.jobs:
            faults.add(("jobs",), "belongs to `workflow`; with `steps` there is one job")
        steps = read_request_steps(body["steps"], faults)
        jobs: tuple[JobSpec, ...] = (
            JobSpec(job="", key=STEPS_JOB, name=STEPS_JOB, steps=steps, pool=request.pool, image=request.image),
        )
    else:
        if request.image:
            faults.add(("image",), "belongs to `steps`; a workflow does not take it")
        text = "" if request.workflow is UNSET else request.workflow
        jobs = read_workflow(text, faults, run="", only=request.jobs, pool=request.pool) if text else ()
    jobs = tuple(
        msgspec.structs.replace(
            job, env=job.env | request.env, secrets=tuple(dict.fromkeys((*job.secrets, *request.secrets))),
            runs_on=() if "pool" in body else job.runs_on,
        )
        for job in jobs
    )  # fmt: skip
    if not faults and len(msgspec.json.encode(jobs)) > MAX_SPEC_BYTES:
        faults.add(("steps" if "steps" in body else "workflow",), f"is over {MAX_SPEC_BYTES} bytes when compiled")
    return jobs


def pause_jobs(jobs: Sequence[JobSpec], ssh: SshRequest, faults: Faults) -> tuple[JobSpec, ...]:
    """The jobs with the pauses that the request asks for."""
    asked = {ssh.pause} if isinstance(ssh.pause, str) else set(ssh.pause)
    at_step = asked & {"after_step", "before_step"}
    if at_step and ssh.direct:
        named = " and ".join(sorted(at_step))
        faults.add(("ssh", "direct"), f"cannot be combined with a pause {named}: direct does not stop the steps")
    if ssh.any_failure and "on_failure" not in asked:
        faults.add(("ssh", "any_failure"), "has no use without a `pause` on_failure")
    number = _step_number(jobs, ssh, bool(at_step), faults)
    plan = PausePlan(
        on_failure="on_failure" in asked, any_failure=ssh.any_failure, at_end="at_end" in asked, direct=ssh.direct,
        after_step=number if "after_step" in asked else 0, before_step=number if "before_step" in asked else 0,
    )  # fmt: skip
    return tuple(msgspec.structs.replace(job, pause=plan) for job in jobs)


def _step_number(jobs: Sequence[JobSpec], ssh: SshRequest, needed: bool, faults: Faults) -> int:
    if ssh.step is UNSET:
        if needed and not faults.at(("ssh", "step")):
            faults.add(("ssh", "step"), "is missing: give the step's number (from 1), id or name")
        return 0
    if not needed:
        faults.add(("ssh", "step"), "has no use without a `pause` of after_step or before_step")
        return 0
    if len(jobs) != 1:
        if jobs:
            listed = ", ".join(job.key for job in jobs[:20])
            faults.add(
                ("ssh", "step"), f"needs exactly one job, and there are {len(jobs)} ({listed}); name one in `jobs`"
            )
        return 0
    if not jobs[0].steps:  # unreadable, and said so
        return 0
    try:
        return find_step(jobs[0], ssh.step)
    except StepNotFound as error:
        faults.add(("ssh", "step"), str(error))
        return 0
