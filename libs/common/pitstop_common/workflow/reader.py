"""Builds the tree of a YAML text from parser events, within bounds of size, depth and alias expansion."""

from __future__ import annotations

from typing import Any, NoReturn

from pitstop_common.faults import Faults, Path, shown
from pitstop_common.limits import (
    MAX_NAME_CHARS,
    MAX_REQUEST_DEPTH,
    MAX_WORKFLOW_BYTES,
    MAX_WORKFLOW_EXPANDED,
    MAX_WORKFLOW_NODES,
)
from pitstop_common.workflow.tree import Entry, MappingNode, Node, ScalarNode, SequenceNode, core_value


class _Unreadable(Exception):
    """The text has no tree; the fault is noted."""


def read_yaml(text: str, faults: Faults, path: Path) -> Node | None:
    """The tree of a one-document YAML text without a byte order mark; None when it has none (the faults say why)."""
    import yaml  # only who reads a workflow pays for it

    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        faults.add(path, "is not valid Unicode")
        return None
    if size > MAX_WORKFLOW_BYTES:
        faults.add(path, f"is {size} bytes long; at most {MAX_WORKFLOW_BYTES} are accepted")
        return None
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(faults, path)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        faults.add(path, f"is not valid YAML: {error.problem or error.context}", line, column)
        return None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = error.position - (before.rfind("\n") + 1) + 1
        faults.add(path, f"is not valid YAML: {error.reason}", before.count("\n") + 1, column)
        return None
    except _Unreadable:
        return None
    if builder.root is None:
        faults.add(path, "is empty", 1, 1)
    return builder.root


class _Frame:
    """A collection that is still open. `key`: of the mapping, waiting for its value."""

    def __init__(self, node: MappingNode | SequenceNode, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: tuple[str, int, int] | None = None

    @property
    def part(self) -> str | int | None:
        if isinstance(self.node, SequenceNode):
            return len(self.node.items)
        return self.key[0] if self.key else None


class _Builder:
    """Takes events one at a time; never recurses. Anchors name whole nodes, which aliases share."""

    def __init__(self, faults: Faults, path: Path) -> None:
        self.root: Node | None = None
        self._faults = faults
        self._path = path
        self._open: list[_Frame] = []
        self._anchors: dict[str, Node | None] = {}
        self._nodes = 0

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if kind == "AliasEvent":
            self._add(self._aliased(event.anchor, line, column), line, column)
        elif kind == "ScalarEvent":
            self._scalar(event, line, column)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._begin(event, MappingNode if kind[0] == "M" else SequenceNode, line, column)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            frame = self._open.pop()
            self._remember(frame.anchor, frame.node)
            self._add(frame.node, frame.node.line, frame.node.column)
        elif kind == "DocumentStartEvent" and self.root is not None:
            self._refuse("holds more than one YAML document (a line of ---); only one is accepted", line, column)

    def _scalar(self, event: Any, line: int, column: int) -> None:
        self._count(event, line, column)
        plain = event.implicit[0]
        node = ScalarNode(
            line=line, column=column, weight=1 + len(event.value), text=event.value,
            value=core_value(event.value) if plain else event.value,
            start=event.start_mark.index, end=event.end_mark.index, block=event.style in ("|", ">"),
        )  # fmt: skip
        self._remember(event.anchor, node)
        self._add(node, line, column)

    def _begin(self, event: Any, kind: type[MappingNode] | type[SequenceNode], line: int, column: int) -> None:
        self._count(event, line, column)
        if len(self._open) >= MAX_REQUEST_DEPTH:
            self._refuse(f"is nested deeper than {MAX_REQUEST_DEPTH} levels", line, column)
        if self._open and isinstance(self._open[-1].node, MappingNode) and self._open[-1].key is None:
            self._refuse("has a key that is not plain text", line, column)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._open.append(_Frame(kind(line=line, column=column), event.anchor))

    def _aliased(self, anchor: str, line: int, column: int) -> Node:
        if anchor not in self._anchors:
            self._refuse(f"names the anchor *{anchor[:40]}, which is not defined before it", line, column)
        node = self._anchors[anchor]
        if node is None:
            self._refuse(f"the anchor *{anchor[:40]} would contain itself", line, column)
        return node

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor:
            self._anchors[anchor] = node

    def _count(self, event: Any, line: int, column: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_WORKFLOW_NODES:
            self._refuse(f"has more than {MAX_WORKFLOW_NODES} values", line, column)
        if event.tag not in (None, "!"):
            self._refuse(f"has the YAML tag {shown(event.tag)}; tags are not supported", line, column)

    def _add(self, node: Node, line: int, column: int) -> None:
        if not self._open:
            self.root = node
            return
        frame = self._open[-1]
        parent = frame.node
        parent.weight += node.weight
        parent.height = max(parent.height, node.height + 1)
        if parent.weight > MAX_WORKFLOW_EXPANDED:
            self._refuse(f"is over {MAX_WORKFLOW_EXPANDED} characters with its aliases expanded", line, column)
        if len(self._open) + node.height - 1 > MAX_REQUEST_DEPTH:
            self._refuse(f"is nested deeper than {MAX_REQUEST_DEPTH} levels", line, column)
        if isinstance(parent, SequenceNode):
            parent.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node, line, column)
        else:
            self._entry(parent, frame.key, node)
            frame.key = None

    def _key(self, node: Node, line: int, column: int) -> tuple[str, int, int]:
        if not isinstance(node, ScalarNode) or not node.text:
            self._refuse("has a key that is not plain text", line, column)
        if len(node.text) > MAX_NAME_CHARS:
            self._refuse(f"has a key longer than {MAX_NAME_CHARS} characters", line, column)
        if not node.text.isprintable():
            self._refuse("has a key with control characters", line, column)
        return node.text, line, column

    def _entry(self, parent: MappingNode, key: tuple[str, int, int], node: Node) -> None:
        name, line, column = key
        first = parent.entries.get(name)
        if first is None:
            parent.entries[name] = Entry(node, line, column)
            return
        self._faults.add(self._at(), f"is given twice; the first is in line {first.line}", line, column)

    def _at(self) -> Path:
        return self._path + tuple(frame.part for frame in self._open if frame.part is not None)

    def _refuse(self, message: str, line: int, column: int) -> NoReturn:
        self._faults.add(self._at(), message, line, column)
        raise _Unreadable
