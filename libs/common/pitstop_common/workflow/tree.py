"""YAML text, or JSON values, as one kind of tree in which every part knows its line and column.

The tree is built from parser events and not from PyYAML's own composer: nesting, size and aliases are bounded while
reading (a composer recurses), keys stay text (`on:` is no boolean), and scalars follow the YAML 1.2 core schema.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

Scalar = str | int | float | bool | None


class Node(msgspec.Struct, eq=False):
    """Base of all. `line` and `column` count from 1; 0 where there is no text. `weight` in characters, with aliases
    expanded; `height` 1 for a scalar."""

    line: int = 0
    column: int = 0
    weight: int = 1
    height: int = 1


class ScalarNode(Node, eq=False):
    """`text` as written (quotes and escapes resolved); `value` by the core schema. `start`, `end`: its place in the
    whole text, for faults inside it."""

    text: str = ""
    value: Scalar = None
    start: int = 0
    end: int = 0
    block: bool = False


class Entry(msgspec.Struct, eq=False):
    """A value of a mapping and where its key stands."""

    node: Node
    line: int = 0
    column: int = 0


class MappingNode(Node, eq=False):
    """Keys in the order of the text."""

    entries: dict[str, Entry] = msgspec.field(default_factory=dict)


class SequenceNode(Node, eq=False):
    """Items in order."""

    items: list[Node] = msgspec.field(default_factory=list)


_NULL: Final = re.compile(r"(?:~|null|Null|NULL|)\Z")
_TRUE: Final = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE: Final = re.compile(r"(?:false|False|FALSE)\Z")
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}\Z")
_OCTAL: Final = re.compile(r"0o[0-7]{1,18}\Z")
_HEX: Final = re.compile(r"0x[0-9a-fA-F]{1,15}\Z")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


def core_value(text: str) -> Scalar:
    """A plain scalar by the YAML 1.2 core schema. Only true and false are booleans; `yes`, `on`, `1:30` are text."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text):
        return True
    if _FALSE.match(text):
        return False
    if len(text) > 40:
        return text
    if _INT.match(text):
        return int(text)
    if _OCTAL.match(text):
        return int(text[2:], 8)
    if _HEX.match(text):
        return int(text[2:], 16)
    return float(text) if _FLOAT.match(text) else text


def from_value(value: Any) -> Node:
    """The tree of decoded JSON. The caller has bounded its depth."""
    if isinstance(value, dict):
        return MappingNode(entries={str(key): Entry(from_value(inner)) for key, inner in value.items()})
    if isinstance(value, list):
        return SequenceNode(items=[from_value(inner) for inner in value])
    if isinstance(value, str):
        return ScalarNode(text=value, value=value)
    return ScalarNode(text="" if value is None else msgspec.json.encode(value).decode(), value=value)


_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def place_in(node: ScalarNode, source: str, wanted: str) -> tuple[int, int]:
    """Line and column of `wanted` inside a scalar, as the file has it; the scalar's own when it is not found."""
    begin = node.start
    if node.block:  # the header line of a block scalar may hold a comment
        header = _BREAK.search(source, begin, node.end)
        begin = header.end() if header else begin
    at = source.find(wanted, begin, node.end)
    if at < 0:
        return node.line, node.column
    breaks = list(_BREAK.finditer(source, node.start, at))
    if not breaks:
        return node.line, node.column + at - node.start
    return node.line + len(breaks), at - breaks[-1].end() + 1
