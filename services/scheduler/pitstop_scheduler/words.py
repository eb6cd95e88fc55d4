"""What people inside a job read of its deadlines."""

from __future__ import annotations

from typing import Final

from pitstop_common.messages import HOLD_OVER, ExpiryReason

_FAREWELLS: Final[dict[str, str]] = {
    "idle": "nobody was active for the idle limit: the job ends and gives its slot back",
    "pressure": "nobody was active while other runs waited: the job ends and gives its slot back",
    "connect_window": "nobody was here for the connect window: the job ends and gives its slot back",
    "max_duration": "the session has reached its maximum duration: the job ends and gives its slot back",
}


def farewell(reason: str, by: str) -> str:
    """Why the job ends now."""
    return f"cancelled by {by}" if by else _FAREWELLS.get(reason, f"the job ends: {reason}")


def resumption(reason: str) -> str:
    """Why the steps go on though nobody said so."""
    if reason == HOLD_OVER:
        return "the hold that this job was started with has been used up, or removed: the steps go on"
    return f"the session expired ({reason}): the steps go on"


def warning(reason: ExpiryReason, left: float, job: str) -> str:
    """What ends in `left` seconds, and how to keep it."""
    time = f"{left / 60:.0f} min" if left >= 90 else f"{max(1, round(left))} s"  # "in 0 s" reads like too late
    if reason == "max_duration":
        return f"this session reaches its maximum duration in {time}: `pitstop extend {job} 30m` keeps it"
    why = "other runs wait for this slot, and nobody types here" if reason == "pressure" else "nobody types here"
    return f"{why}: this session ends in {time}. Press any key to keep it"
