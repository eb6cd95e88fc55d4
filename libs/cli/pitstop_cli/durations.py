"""Lengths of time as people write them."""

from __future__ import annotations

import re
from typing import Final

import click

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def duration(text: str) -> float:
    """`90`, `90s`, `10m`, `1.5h`, `7d` -> seconds. Raises ValueError."""
    form = _DURATION.fullmatch(text.strip())
    if form is None or float(form[1]) <= 0:
        raise ValueError(f"{text!r} is not a duration like 90s, 10m, 2h or 7d")
    return float(form[1]) * _UNITS[form[2]]


def seconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option or argument that is a duration."""
    if value is None:
        return None
    try:
        return duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
