"""A place in the tree, and the reading of it: every reader returns the value, or notes a fault and returns None."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection
from typing import Final

from pitstop_common.faults import Faults, Path, shown
from pitstop_common.limits import MAX_ENV_VALUE_CHARS, MAX_ENV_VARS, MAX_NAME_CHARS
from pitstop_common.workflow.tree import Entry, MappingNode, Node, ScalarNode, SequenceNode, place_in

EXPRESSION: Final = "${{"
_EXPRESSION: Final = re.compile(r"\$\{\{.{0,200}?\}\}", re.DOTALL)
_SINGLE_LINE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]*\Z")
_MANY_LINES: Final = re.compile(r"[^\x00\ud800-\udfff]*\Z")
_ENV_NAME: Final = re.compile(r"[^\x00-\x20=\x7f]{1,200}\Z")


class Reading:
    """What all places of one text share. `strict`: unknown keys are faults (YAML), else ignored (JSON)."""

    def __init__(self, faults: Faults, source: str = "", *, strict: bool = True) -> None:
        self.faults = faults
        self.source = source
        self.strict = strict


class Place:
    """A node, the path that leads to it, and the key it hangs on."""

    def __init__(self, reading: Reading, node: Node, path: Path, key: tuple[int, int] | None = None) -> None:
        self.node = node
        self.path = path
        self._reading = reading
        self._key = key or (node.line, node.column)

    def fault(self, message: str, *, at_key: bool = False, near: str = "") -> None:
        """Note a fault here; at the key; or at the text `near` inside this scalar."""
        line, column = self._key if at_key else (self.node.line, self.node.column)
        if near and isinstance(self.node, ScalarNode) and self._reading.source:
            line, column = place_in(self.node, self._reading.source, near)
        self._reading.faults.add(self.path, message, line, column)

    @property
    def missing(self) -> bool:
        """Nothing was written here (YAML `key:`, JSON null)."""
        return isinstance(self.node, ScalarNode) and self.node.value is None

    # -- collections -----------------------------------------------------------------------------------------------

    def entries(self) -> dict[str, Place]:
        """The places of a mapping by key. Nothing written counts as empty."""
        if isinstance(self.node, MappingNode):
            return {key: self._inner(key, entry) for key, entry in self.node.entries.items()}
        if not self.missing:
            self.fault("must be a mapping (key: value)")
        return {}

    def items(self) -> list[Place]:
        """The places of a list."""
        if isinstance(self.node, SequenceNode):
            return [Place(self._reading, item, (*self.path, i)) for i, item in enumerate(self.node.items)]
        self.fault("is empty; a list is needed here" if self.missing else "must be a list")
        return []

    def fields(
        self, known: Collection[str], later: Collection[str] = (), ignored: Collection[str] = ()
    ) -> dict[str, Place]:
        """The known keys of a mapping. `later`: keys of the field that Pitstop does not have yet; `ignored`: keys
        that change nothing here."""
        found = self.entries()
        for key, place in found.items():
            if key in later:
                place.fault(f"`{key}` is not supported yet", at_key=True)
            elif key not in known and key not in ignored and self._reading.strict:
                place.fault(f"unknown key {shown(key)}{_meant(key, (*known, *later, *ignored))}", at_key=True)
        return {key: place for key, place in found.items() if key in known}

    def _inner(self, key: str, entry: Entry) -> Place:
        key_place = (entry.line, entry.column) if entry.line else None
        return Place(self._reading, entry.node, (*self.path, key), key_place)

    # -- scalars ---------------------------------------------------------------------------------------------------

    def scalar(self) -> ScalarNode | None:
        """The scalar here, if it is one and holds no expression."""
        if not isinstance(self.node, ScalarNode):
            self.fault("must be a single value, not a mapping or a list")
            return None
        if EXPRESSION in self.node.text:
            found = _EXPRESSION.search(self.node.text)
            named = shown(found.group()) if found else EXPRESSION
            self.fault(f"the expression {named} is not supported yet", near=EXPRESSION)
            return None
        return self.node

    def value(self, limit: int = MAX_ENV_VALUE_CHARS, *, typed: bool = True) -> str | None:
        """Text of any lines; numbers as they are written, booleans as true or false, nothing as empty text.

        `typed`: JSON must have text here, and nothing else.
        """
        node = self.scalar()
        if node is None:
            return None
        if typed and not self._reading.strict and not isinstance(node.value, str):
            self.fault("must be text")
            return None
        text = node.text if isinstance(node.value, str) else _plain(node)
        if len(text) > limit:
            self.fault(f"is {len(text)} characters long; at most {limit} are accepted")
            return None
        if not _MANY_LINES.match(text):
            self.fault("holds a NUL character or half a Unicode character")
            return None
        return text

    def text(self, limit: int = MAX_NAME_CHARS, *, typed: bool = True) -> str | None:
        """One line of text, not empty."""
        text = self.value(limit, typed=typed)
        if text is None:
            return None
        if not text.strip():
            self.fault("is empty")
            return None
        if not _SINGLE_LINE.match(text):
            self.fault("must be one line without control characters")
            return None
        return text

    def flag(self) -> bool | None:
        """true or false."""
        node = self.scalar()
        if node is None or isinstance(node.value, bool):
            return None if node is None else bool(node.value)
        self.fault(f"must be true or false, not {shown(node.text)}")
        return None

    def number(self, low: float, high: float) -> float | None:
        """A number in `low` < n <= `high`."""
        node = self.scalar()
        if node is None:
            return None
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            self.fault(f"must be a number, not {shown(node.text)}")
            return None
        if not math.isfinite(node.value) or not low < node.value <= high:
            self.fault(f"must be more than {low:g} and at most {high:g}")
            return None
        return float(node.value)

    def variables(self) -> dict[str, str]:
        """A mapping of environment variables."""
        found = self.entries()
        if len(found) > MAX_ENV_VARS:
            self.fault(f"has {len(found)} variables; at most {MAX_ENV_VARS} are accepted")
            return {}
        result = {}
        for name, place in found.items():
            if not _ENV_NAME.match(name):
                place.fault(f"{shown(name)} cannot be the name of a variable", at_key=True)
            elif (value := place.value(typed=False)) is not None:
                result[name] = value
        return result


def _plain(node: ScalarNode) -> str:
    if node.value is None:
        return ""
    return str(node.value).lower() if isinstance(node.value, bool) else node.text


def _meant(key: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(key[:40].lower(), list(known), 1)
    return f"; did you mean `{close[0]}`?" if close else f"; known here: {', '.join(sorted(known))}"
