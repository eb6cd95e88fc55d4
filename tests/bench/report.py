"""Rows of the result: computed, shown, written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure beside its peer's. `ratio` is ours / other. `target` says what must hold, `pass` whether it does;
    null: a figure without a target."""

    name: str
    ours: float
    other: float
    ratio: float
    target: str = ""
    passed: bool | None = msgspec.field(default=None, name="pass")
    unit: str = "ms"
    note: str = ""


def row(name: str, ours: float, other: float, *, most: float | None = None, least: float | None = None,
        of: Literal["ratio", "ours"] = "ratio", unit: str = "ms", note: str = "") -> Row:  # fmt: skip
    """`most` or `least`: what `of` has to keep to."""
    ratio = ours / other if other else math.inf
    found = ratio if of == "ratio" else ours
    suffix = f" {unit}" if of == "ours" else ""
    target, passed = "", None
    if most is not None:
        target, passed = f"{of} <= {most:g}{suffix}", found <= most
    elif least is not None:
        target, passed = f"{of} >= {least:g}{suffix}", found >= least
    return Row(name=name, ours=_short(ours), other=_short(other), ratio=_short(ratio), target=target, passed=passed,
               unit=unit, note=note)  # fmt: skip


def median(values: Sequence[float]) -> float:
    """The middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], of_hundred: int) -> float:
    """By nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * of_hundred / 100) - 1)]


def table(rows: Iterable[Row]) -> str:
    """For people."""
    head = ("", "ours", "other", "ratio", "target", "")
    lines = [head, *((one.name, f"{one.ours:g} {one.unit}", f"{one.other:g} {one.unit}", f"{one.ratio:.2f}", one.target,
                      _word(one.passed)) for one in rows)]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(_line(line, widths) for line in lines)


def write(path: Path, rows: Sequence[Row]) -> None:
    """For programs: a list of rows."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1) + b"\n")


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join((name.strip().ljust(widths[0]), *numbers[:3], cells[4].ljust(widths[4]), cells[5])).rstrip()


def _word(passed: bool | None) -> str:
    return {True: "pass", False: "MISSED", None: ""}[passed]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
