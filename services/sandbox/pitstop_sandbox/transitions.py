"""Everything about which event may happen in which status, in one table. `decide` holds the rules, this the frame.

Two rules: an event that is not in the table for the current status raises and changes nothing; and no event leads to
a status that its cell does not name. The diagram in the README is drawn from the same table.
"""

from __future__ import annotations

import enum
from typing import Final


class Status(enum.Enum):
    """Where a job attempt is."""

    PREPARING = "preparing"
    """The sandbox is being made."""
    STEPPING = "stepping"
    """A step is in progress."""
    PAUSED = "paused"
    """Waits for its person."""
    RETRYING = "retrying"
    """Paused, and the person has the step run again."""
    WAITING = "waiting"
    """All steps are over; somebody is inside, or may still come."""
    FINISHING = "finishing"
    """The result is known; the sandbox is being removed."""
    FINISHED = "finished"
    """The end is stored."""


class IllegalEvent(Exception):
    """This event cannot happen in this status: a defect of the caller. The state is unchanged."""


_P, _S, _A, _R, _W, _F, _END = Status

_STAYS_UNTIL_STORED = {"Stored": (_F, _END), "Replied": (_F,)}
_ANYWHERE = ("Tick", "SessionOpened", "SessionClosed", "ShellStarted", "Active", "Used", "Stored", "Replied")

TABLE: Final[dict[Status, dict[str, tuple[Status, ...]]]] = {
    _P: {
        "SandboxMade": (_S, _A, _W, _F),
        "SandboxSaid": (_P,),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_P,),
        "ShellEnded": (_P,),
        "Exported": (_P,),
        "PauseWanted": (_P,),
        "Asked": (_P,),
        **dict.fromkeys(_ANYWHERE, (_P,)),
    },
    _S: {
        "StepEnded": (_S, _A, _W, _F),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_S,),
        "ShellEnded": (_S,),
        "Exported": (_S,),
        "PauseWanted": (_S,),
        "Asked": (_S,),
        **dict.fromkeys(_ANYWHERE, (_S,)),
        "Tick": (_S, _F),
    },
    _A: {
        "StepEnded": (_A,),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_S, _A, _W, _F),
        "ShellEnded": (_A, _S, _W, _F),
        "Exported": (_A,),
        "PauseWanted": (_A, _S, _W, _F),
        "Asked": (_A, _R, _S, _W, _F),
        **dict.fromkeys(_ANYWHERE, (_A,)),
    },
    _R: {
        "StepEnded": (_R, _A, _S, _W, _F),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_R,),
        "ShellEnded": (_R,),
        "Exported": (_R,),
        "PauseWanted": (_R,),
        "Asked": (_R,),
        **dict.fromkeys(_ANYWHERE, (_R,)),
    },
    _W: {
        "StepEnded": (_W,),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_F,),
        "ShellEnded": (_W, _F),
        "Exported": (_W,),
        "PauseWanted": (_W,),
        "Asked": (_W, _F),
        **dict.fromkeys(_ANYWHERE, (_W,)),
    },
    _F: {
        "StepEnded": (_F,),
        "SandboxBroke": (_F,),
        "Stopped": (_F,),
        "Resumed": (_F,),
        "ShellEnded": (_F,),
        "Exported": (_F,),
        "PauseWanted": (_F,),
        "Asked": (_F,),
        "Removed": (_F,),
        **dict.fromkeys(_ANYWHERE, (_F,)),
        **_STAYS_UNTIL_STORED,
    },
    _END: {
        "StepEnded": (_END,),
        "SandboxBroke": (_END,),
        "Stopped": (_END,),
        "Resumed": (_END,),
        "ShellEnded": (_END,),
        "Exported": (_END,),
        "PauseWanted": (_END,),
        "Asked": (_END,),
        "Removed": (_END,),
        **dict.fromkeys(_ANYWHERE, (_END,)),
    },
}


def check_legal(status: Status, event: object) -> None:
    """Raise IllegalEvent unless the event may happen in this status."""
    if type(event).__name__ not in TABLE[status]:
        raise IllegalEvent(f"{type(event).__name__} while {status.value}")


def check_reached(status: Status, event: object, reached: Status) -> None:
    """Raise IllegalEvent unless the event may lead from `status` to `reached`."""
    if reached not in TABLE[status][type(event).__name__]:
        raise IllegalEvent(f"{type(event).__name__} led from {status.value} to {reached.value}")


def diagram() -> str:
    """The table as a mermaid state diagram. Events that change nothing are left out."""
    lines = ["stateDiagram-v2", f"    [*] --> {_P.value}"]
    for status, row in TABLE.items():
        arrows: dict[Status, list[str]] = {}
        for event, reached in row.items():
            for target in reached:
                if target is not status:
                    arrows.setdefault(target, []).append(event)
        lines += [f"    {status.value} --> {target.value}: {', '.join(events)}" for target, events in arrows.items()]
    return "\n".join([*lines, f"    {_END.value} --> [*]"]) + "\n"
