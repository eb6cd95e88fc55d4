"""Statuses as text. Pure: views in, lines out. Times are shown in the reader's own time zone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pitstop_cli.console import plain

_REASONS = {
    "after_step": "paused after step",
    "before_step": "paused before step",
    "on_failure": "paused at the failed step",
    "at_end": "paused at the end",
    "forced": "paused after step",
    "direct": "open for a session",
}
_DEADLINES = {
    "connect_window": "unless somebody enters",
    "idle": "unless somebody is active",
    "max_duration": "at the latest",
    "pressure": "others wait",
}


def clock(seconds: float, now: float) -> str:
    """A moment: `14:05`, with the date when it is not today."""
    there, here = time.localtime(seconds), time.localtime(now)
    return time.strftime("%H:%M" if there[:3] == here[:3] else "%Y-%m-%d %H:%M", there)


def span(seconds: float) -> str:
    """A length of time: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min" if whole % 3600 >= 60 else f"{whole // 3600} h"


def state(entry: dict[str, Any]) -> str:
    """A job's state in a few words, without its slot."""
    job, report = entry["job"], entry.get("report") or {}
    if job["status"] == "finished":
        reason = f" ({plain(job['reason'])})" if job.get("reason") else ""
        return f"finished: {job['result']}{reason}"
    if job["status"] == "paused":
        words = _REASONS.get(report.get("paused", ""), "paused")
        step = report.get("paused_step") or 0
        return f"{words} {step}" if step and words.endswith("step") else words
    return f"{job['status']}{will_pause(job)}"


def will_pause(job: dict[str, Any]) -> str:
    """`, will pause after step 3 (asked by ada)`; empty when it will not."""
    if not job.get("pausing"):
        return ""
    step = f" after step {job['pausing_step']}" if job.get("pausing_step") else " after its step"
    return f", will pause{step}" + (f" (asked by {plain(job['pausing_by'])})" if job.get("pausing_by") else "")


def queued(entry: dict[str, Any]) -> str:
    """Where a waiting job stands and why."""
    position = f"position {entry['position']}" if entry.get("position") else "waiting"
    reason = plain(str(entry.get("reason") or ""))
    return f"queued, {position}" + (f": {reason}" if reason else "")


def slot(entry: dict[str, Any], now: float) -> str:
    """`holds 1 of 4 slots of acme until 14:05`; empty when it holds none."""
    job = entry["job"]
    if not job.get("use"):
        return ""
    of = f"1 of {entry['limit']} slots" if entry.get("limit") else "a slot"
    until = ""
    if job.get("deadline"):
        why = _DEADLINES.get(job.get("deadline_reason", ""), "")
        until = f" until {clock(job['deadline'], now)}" + (f", {why}" if why else "")
    return f"holds {of} of {job['org']}{until}"


def run_lines(status: dict[str, Any], now: float) -> Iterator[str]:
    """The page of `pitstop status RUN`."""
    run = status["run"]
    result = f": {run['result']}" if run.get("result") else ""
    yield f"run {run['run']}  {plain(run['project'])}  {run['status']}{result}"
    yield f"  org {run['org']}, by {plain(run['actor']) or 'nobody named'}{_when(run, now)}"
    if run.get("rerun_of"):
        yield f"  rerun of {run['rerun_of']}"
    for rerun in status.get("reruns") or ():
        who = plain(rerun["actor"]) or "nobody named"
        yield f"  done again by {who}: {rerun['run']}, {clock(rerun['created'], now)}"
    for note in status.get("notes") or ():
        yield f"  note: {plain(note)}"
    for entry in status["jobs"]:
        yield ""
        yield from job_lines(entry, now)


def job_lines(entry: dict[str, Any], now: float) -> Iterator[str]:
    """A job: state, way in, slot, who is let in, steps."""
    job, report = entry["job"], entry.get("report") or {}
    words = queued(entry) if job["status"] == "queued" else state(entry)
    yield f"job {job['job']}  {plain(job['key'])}  {words}{again(job)}"
    if job.get("guests") and job["status"] == "paused":
        yield f"  as asked while it ran, by {plain(', '.join(job['guests']))}"
    if job.get("held_for") and job["status"] == "paused":
        yield f"  held for {plain(job['held_for'])} (hold {job['hold']})"
    address = report.get("ssh")
    if address and job["status"] in {"running", "paused"}:
        yield f"  {plain(address['command'])}"
        for person in entry.get("allowed") or []:
            yield f"    lets in {plain(person['user'])}  {plain(person['fingerprint'])}"
        if job.get("sessions"):
            yield f"    {job['sessions']} connected now"
    held = slot(entry, now)
    if held:
        yield f"  {held}"
    done = report.get("steps") or []
    for step in done:
        yield "  " + step_line(step)
    names = entry.get("steps") or []
    for index in range(len(done), len(names)):
        yield f"  {index + 1:>3}. {plain(names[index])}"


def again(job: dict[str, Any]) -> str:
    """`  (attempt 2; attempt 1 was lost: host_lost)`; empty at the first."""
    lost = [f"attempt {number} was lost: {plain(why)}" for number, why in enumerate(job.get("earlier") or (), 1)]
    words = [f"attempt {job['attempt']}"] if job["attempt"] > 1 else []
    return f"  ({'; '.join([*words, *lost])})" if words or lost else ""


def step_line(step: dict[str, Any]) -> str:
    """`  3. make test   failure (exit 2)  1.2 s  2 tries, retry by ada`."""
    result = step.get("result") or "…"
    code = step.get("exit_code")
    ended = f" (exit {code})" if code else ""
    took = f"  {span(step['duration'])}" if step.get("duration") else ""
    extras = []
    if step.get("attempts", 0) > 1:
        extras.append(f"{step['attempts']} tries")
    if step.get("choice"):
        extras.append(f"{step['choice']} by {plain(step.get('by') or '?')}")
    told = f"  {', '.join(extras)}" if extras else ""
    return f"{step['index']:>3}. {plain(step['name'])}  {result}{ended}{took}{told}"


def _when(run: dict[str, Any], now: float) -> str:
    if run.get("finished"):
        return f", {clock(run['created'], now)}, took {span(run['finished'] - run['created'])}"
    return f", since {clock(run['created'], now)}" if run.get("created") else ""


def over(job: str) -> str:
    """What to do about a job that nobody can enter any more."""
    return f"what it said: pitstop logs {job}   again: pitstop rerun {job} --ssh-on-failure"
