"""Tables of who holds which slot and who waits: for `pitstop ls` and `pitstop top`. Pure: answers in, lines out."""

from __future__ import annotations

from typing import Any, Final

from pitstop_cli.console import plain
from pitstop_cli.words import clock, span

HELD: Final = ("JOB", "PROJECT", "KEY", "BY", "STATE", "SLOT SINCE", "INSIDE", "IDLE", "UNTIL")
_QUEUED: Final = ("PLACE", "JOB", "PROJECT", "KEY", "BY", "SINCE", "WHY IT WAITS")


def columns(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Lines with columns as wide as they need to be."""
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heads, *rows]
    ]  # fmt: skip


def held_rows(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row for each job: who holds its slot, since when, idle for how long, until when."""
    actors = {run["run"]: plain(run["actor"]) for run in answer["runs"]}
    return [_held(job, actors.get(job["run"], ""), answer["now"]) for job in answer["jobs"]]


def _held(job: dict[str, Any], actor: str, now: float) -> tuple[str, ...]:
    until = f"{clock(job['deadline'], now)} ({job.get('deadline_reason') or '?'})" if job.get("deadline") else "-"
    last = max(job.get("active") or 0, job.get("paused_at") or 0)
    return (
        job["job"], plain(job["project"]), plain(job["key"]), actor,
        job["status"] + (", will pause" if job.get("pausing") else ""),
        clock(job["slot_since"], now) if job.get("slot_since") else "-",
        str(job.get("sessions") or 0), span(max(0.0, now - last)) if last else "-", until,
    )  # fmt: skip


def slots_line(answer: dict[str, Any], org: str) -> str:
    """`2 of 4 slots of acme in use, 1 of them for sessions`."""
    slots = answer["slots"]
    return (
        f"{slots['used']} of {slots['limit'] or 'unlimited'} slots of {org} in use, "
        f"{slots['debug']} of them for sessions"
    )  # fmt: skip


def top_lines(answer: dict[str, Any], org: str) -> list[str]:
    """The page of `pitstop top`."""
    count = answer["waiting"]
    waits = f"{count} job{'s' * (count != 1)} wait{'s' * (count == 1)}" if count else "no job waits"
    lines = [f"{slots_line(answer, org)}; {waits}", "", *columns(HELD, held_rows(answer))]
    if answer["queue"]:
        rows: list[tuple[str, ...]] = [
            (str(job["position"]), job["job"], plain(job["project"]), plain(job["key"]), plain(job["actor"]),
             clock(job["queued"], answer["now"]), plain(job["reason"]))
            for job in answer["queue"]
        ]  # fmt: skip
        lines += ["", *columns(_QUEUED, rows)]
        if count > answer["queue"][-1]["position"]:
            lines.append(f"and {count - answer['queue'][-1]['position']} more")
    return lines


def screen(lines: list[str], width: int, height: int) -> list[str]:
    """As much of the page as a terminal shows; the last line says what it does not."""
    shown = [line if len(line) <= width else line[: max(0, width - 1)] + "…" for line in lines]
    if len(shown) <= height:
        return shown
    return [*shown[: height - 1], f"… {len(shown) - height + 1} more lines"[:width]]
