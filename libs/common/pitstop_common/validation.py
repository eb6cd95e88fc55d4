"""Checks decoded JSON against a Struct and names every faulty field. (msgspec itself stops at the first.)"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import UNSET, inspect

from pitstop_common.faults import Faults, Path, shown

_KINDS: Final[dict[type[inspect.Type], str]] = {
    inspect.StrType: "text",
    inspect.LiteralType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.ListType: "a list",
    inspect.DictType: "an object",
    inspect.StructType: "an object",
    inspect.NoneType: "null",
}


def check_struct(
    value: Any, struct: type[msgspec.Struct], faults: Faults, path: Path = (), skip: Collection[str] = ()
) -> dict[str, Any]:
    """Note each field of `value` that does not fit `struct`, and return those that do, without unknown ones.

    `skip`: fields that are read elsewhere. Faults never repeat a value, only its kind and length: it may be a secret
    in the wrong place. Raises TooManyFaults when `faults` is full.
    """
    sound: dict[str, Any] = {}
    if not isinstance(value, dict):
        faults.add(path, f"must be an object, not {_kind_of(value)}")
        return sound
    for field in _info(struct).fields:
        name = field.encode_name
        if name in value and name not in skip:
            sound[name] = _check(value[name], field.type, faults, (*path, name))
        elif field.required and name not in value:
            faults.add((*path, name), "is missing")
    return {name: inner for name, inner in sound.items() if inner is not UNSET}


@cache
def _info(struct: type[msgspec.Struct]) -> inspect.StructType:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    return info


def _check(value: Any, type_: inspect.Type, faults: Faults, path: Path) -> Any:
    """The value, if it fits; what is left of an object; else UNSET."""
    members = _members(type_)
    wrapped = next((member for member in members if _is_kind(value, _bare(member))), None)
    if wrapped is None:
        kinds = dict.fromkeys(_KINDS[kind] for kind in map(type, map(_bare, members)) if kind in _KINDS)
        faults.add(path, f"must be {' or '.join(kinds)}, not {_kind_of(value)}")
        return UNSET
    fitting = _bare(wrapped)
    if isinstance(fitting, inspect.StructType):
        return check_struct(value, fitting.cls, faults, path)
    if message := _out_of_bounds(value, fitting, _about(wrapped)):
        faults.add(path, message)
        return UNSET
    if isinstance(fitting, inspect.ListType):
        items = [_check(item, fitting.item_type, faults, (*path, i)) for i, item in enumerate(value)]
        return UNSET if UNSET in items else items
    if isinstance(fitting, inspect.DictType):
        return _check_entries(value, fitting, faults, path)
    return int(value) if isinstance(fitting, inspect.IntType) else value


def _check_entries(value: dict[str, Any], type_: inspect.DictType, faults: Faults, path: Path) -> dict[str, Any]:
    sound: dict[str, Any] = {}
    for key, inner in value.items():
        if _out_of_bounds(key, _bare(type_.key_type), ""):
            faults.add(path, f"{shown(key)} cannot be a name here")
        else:
            sound[key] = _check(inner, type_.value_type, faults, (*path, key))
    return {key: inner for key, inner in sound.items() if inner is not UNSET}


def _members(type_: inspect.Type) -> tuple[inspect.Type, ...]:
    bare = _bare(type_)
    return bare.types if isinstance(bare, inspect.UnionType) else (type_,)


def _bare(type_: inspect.Type) -> inspect.Type:
    return _bare(type_.type) if isinstance(type_, inspect.Metadata) else type_


def _about(type_: inspect.Type) -> str:
    schema = type_.extra_json_schema if isinstance(type_, inspect.Metadata) else None
    return str((schema or {}).get("description", ""))


def _is_kind(value: Any, type_: inspect.Type) -> bool:
    """As JSON Schema has it: true is no number, and 4.0 is a whole one."""
    match type_:
        case inspect.AnyType():
            return True
        case inspect.NoneType():
            return value is None
        case inspect.StrType() | inspect.LiteralType():
            return isinstance(value, str)
        case inspect.BoolType():
            return isinstance(value, bool)
        case inspect.IntType():
            return _is_number(value) and (isinstance(value, int) or value.is_integer())
        case inspect.FloatType():
            return _is_number(value)
        case inspect.ListType():
            return isinstance(value, list)
        case inspect.DictType() | inspect.StructType():
            return isinstance(value, dict)
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _out_of_bounds(value: Any, type_: inspect.Type, about: str) -> str:
    """Why a value of the right kind does not fit; empty when it does."""
    match type_:
        case inspect.LiteralType():
            return "" if value in type_.values else "must be one of " + ", ".join(map(str, type_.values))
        case inspect.StrType():
            return _bad_length(len(value), type_, "characters") or _bad_text(value, type_.pattern, about)
        case inspect.ListType():
            return _bad_length(len(value), type_, "items")
        case inspect.DictType():
            return _bad_length(len(value), type_, "entries")
        case inspect.IntType() | inspect.FloatType():
            return _bad_number(value, type_, about)
    return ""


def _bad_length(size: int, type_: inspect.StrType | inspect.ListType | inspect.DictType, unit: str) -> str:
    if type_.max_length is not None and size > type_.max_length:
        return f"has {size} {unit}; at most {type_.max_length} are accepted"
    if type_.min_length is not None and size < type_.min_length:
        return f"has {size} {unit}; at least {type_.min_length} is needed"
    return ""


def _bad_text(value: str, pattern: str | None, about: str) -> str:
    if pattern is None or _compiled(pattern).search(value):
        return ""
    control = next((char for char in value if ord(char) < 32 or 127 <= ord(char) < 160), None)
    held = f"holds the control character U+{ord(control):04X}; " if control else ""
    return held + (f"must be {about}" if about else f"must match {pattern}")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """`$` of JSON Schema is the very end; Python's also stands before a last newline."""
    return re.compile(pattern.removesuffix("$") + (r"\Z" if pattern.endswith("$") else ""))


def _bad_number(value: float, type_: inspect.IntType | inspect.FloatType, about: str) -> str:
    low = (type_.ge is None or value >= type_.ge) and (type_.gt is None or value > type_.gt)
    high = (type_.le is None or value <= type_.le) and (type_.lt is None or value < type_.lt)
    if low and high:
        return ""
    if about:
        return f"must be {about}"
    bounds = [f"{word} {bound:g}" for word, bound in (
        ("at least", type_.ge), ("more than", type_.gt), ("at most", type_.le), ("less than", type_.lt)
    ) if bound is not None]  # fmt: skip
    return "must be " + " and ".join(bounds)


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    for kind, name in ((str, "text"), (int | float, "a number"), (list, "a list")):
        if isinstance(value, kind):
            return name
    return "an object"
