"""The secrets of a job while it runs: in the memory of its host process, and in the environment of what it starts.

The journal, which is on disk, names them instead: a secret in what a step exported or asked to mask is written there as
`NUL name NUL` (no variable can hold a NUL), and put in again when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from pitstop_common.limits import MIN_MASKED
from pitstop_sandbox.events import Exports, StepEnded

_NAMED: Final = re.compile("\0([A-Za-z0-9_]+)\0")


class SecretValues:
    """Names and values. Pure."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.env: Mapping[str, str] = dict(values)
        """As variables of every step and shell."""
        long = {name: value for name, value in values.items() if len(value.encode()) >= MIN_MASKED}
        self.masks = tuple(dict.fromkeys(long.values()))
        """The values that are hidden in logs: those that are long enough."""
        self._names = {value: name for name, value in long.items()}
        longest_first = sorted(self._names, key=lambda value: (-len(value), value))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def hide(self, text: str) -> str:
        """For the journal."""
        return self._pattern.sub(lambda found: f"\0{self._names[found[0]]}\0", text) if self._pattern else text

    def show(self, text: str) -> str:
        """What was hidden. A secret that the job has no more (it was removed, and the host restarted) is empty."""
        return _NAMED.sub(lambda found: self.env.get(found[1], ""), text) if "\0" in text else text

    def all_masks(self, learnt: Sequence[str]) -> tuple[str, ...]:
        """The values, and those that the job's steps asked to mask (as the journal has them)."""
        return (*self.masks, *map(self.show, learnt))

    def exports(self, exports: Exports) -> Exports:
        """Exports for the journal."""
        if self._pattern is None:
            return exports
        return Exports(
            env={name: self.hide(value) for name, value in exports.env.items()},
            path=tuple(map(self.hide, exports.path)),
        )

    def ended(self, event: StepEnded) -> StepEnded:
        """The end of a step, for the journal."""
        if self._pattern is None:
            return event
        return msgspec.structs.replace(
            event, exports=self.exports(event.exports), masks=tuple(map(self.hide, event.masks))
        )


NO_SECRETS: Final = SecretValues({})
