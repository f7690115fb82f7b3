"""What options a config dataclass has: their dotted names, their types, and those types in words."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from training.errors import BadInput


def option_types(config_class: type, prefix: str = "") -> dict[str, Any]:
    """Every option's dotted name and type, groups included, in the order of the fields."""
    hints = typing.get_type_hints(config_class)
    kinds: dict[str, Any] = {}
    for field in dataclasses.fields(config_class):
        if not field.init:
            continue
        kinds[prefix + field.name] = hints[field.name]
        group = group_of(hints[field.name])
        if group is not None:
            kinds.update(option_types(group, f"{prefix}{field.name}."))
    return kinds


def known_name(name: str, kinds: Mapping[str, Any], where: str) -> str:
    """The option that `name` means, or BadInput with the nearest one."""
    spelled = name.replace("-", "_")
    for candidate in (spelled, spelled + "_"):
        if candidate in kinds:
            return candidate
    leaves = [kind for kind in kinds if kind.rpartition(".")[2] == spelled.rpartition(".")[2]]
    near = difflib.get_close_matches(spelled, kinds, n=1, cutoff=0.75) or leaves[:1]
    near = near or difflib.get_close_matches(spelled, kinds, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0].rstrip('_')}?" if near else "; --help lists the options"
    raise BadInput(f"unknown option {name}{where}{hint}")


def describe_type(kind: Any) -> str:
    """A type in words for a person at the command line."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if part is type(None) else describe_type(part) for part in arguments)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(kind.__members__)
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    if kind in words:
        return words[kind]
    if origin in (tuple, list, Sequence):
        parts = [describe_type(part) for part in arguments if part is not Ellipsis]
        return f"a list of {parts[0]} each, like [A, B]" if len(set(parts)) == 1 else f"a list of {', '.join(parts)}"
    if origin in (dict, Mapping):
        return "a mapping, like {name: value}"
    if group_of(kind) is not None:
        return "a group of options"
    return getattr(kind, "__name__", str(kind))


def is_text(kind: Any) -> bool:
    """Whether the word null is a value of this type like any other."""
    return kind is str or kind is Path


def group_of(kind: Any) -> type | None:
    """The dataclass behind a field's type, if the field is a group of options."""
    optional = typing.get_origin(kind) in (types.UnionType, typing.Union)
    for part in typing.get_args(kind) if optional else (kind,):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part
    return None
