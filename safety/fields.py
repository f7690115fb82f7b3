"""Fields of a policy whose allowed values are said once: for the check when one is made, and for the JSON Schema."""

import dataclasses
import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from training.errors import BadInput

SCHEMA = "https://json-schema.org/draft/2020-12/schema"


def value(
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    because: str = "",
) -> Any:
    """A dataclass field with a range.

    Args:
        default: without one the field is required.
        low: least value.
        above: what the value must exceed.
        high: greatest value.
        because: why, for whoever breaks it.
    """
    ranges = {"low": low, "above": above, "high": high, "because": because}
    return dataclasses.field(default=default, metadata={name: end for name, end in ranges.items() if end is not None})


def check(instance: Any) -> None:
    """Checks every field of a frozen dataclass against its type and range.

    Raises:
        BadInput: naming the field, what it takes and what was given.
    """
    hints = typing.get_type_hints(type(instance))
    for item in dataclasses.fields(instance):
        _check(item.name, getattr(instance, item.name), hints[item.name], item.metadata)


def made(kind: type, values: Any, what: str, where: str = "") -> Any:
    """Makes a policy or a part of one from a mapping such as a YAML file's.

    Args:
        kind: its dataclass.
        values: what the file says.
        what: what the file would have to be, for whoever breaks it.
        where: name of the part; "" for the whole.

    Raises:
        BadInput: no mapping, a field that there is not (with the nearest one), a missing field, or a bad value.
    """
    place = f"{where}." if where else ""
    names = [item.name for item in dataclasses.fields(kind)]
    _require(isinstance(values, Mapping), f"{what}: {where} wants some of {', '.join(names)}, got {values!r}")
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
            hint = f"did you mean {place}{near[0]}?" if near else f"there are {', '.join(names)}"
            raise BadInput(f"{what}: unknown field {place}{name}; {hint}")
    absent = dataclasses.MISSING
    lacks = [place + item.name for item in dataclasses.fields(kind)
             if item.name not in values and item.default is absent and item.default_factory is absent]  # fmt: skip
    _require(not lacks, f"{what}: it lacks {', '.join(lacks)}")
    try:
        return kind(**values)
    except TypeError as error:  # where types are checked at run time
        raise BadInput(f"{what}: {error}") from error


def schema(kind: type, title: str) -> dict[str, Any]:
    """The JSON Schema of the YAML or JSON form of a dataclass; descriptions are those of its docstring."""
    return {"$schema": SCHEMA, "title": title, **_object(kind)}


def _check(name: str, given: Any, hint: Any, ranges: Mapping[str, Any]) -> None:
    choices = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if given is None and type(None) in choices:
        return
    kind = next(choice for choice in choices if choice is not type(None))
    origin = typing.get_origin(kind)
    if kind in (int, float):
        _check_number(name, given, kind, ranges)
    elif kind is str:
        _require(isinstance(given, str) and bool(given.strip()), f"{name} must be a text, got {given!r}")
    elif origin is Literal:
        wanted = typing.get_args(kind)
        _require(given in wanted, f"{name} is one of {', '.join(map(str, wanted))}, got {given!r}")
    elif origin is Mapping:
        if not isinstance(given, Mapping):
            raise BadInput(f"{name} must be a mapping, got {given!r}")
        for key, part in given.items():
            _check(f"{name}[{key!r}]", part, typing.get_args(kind)[1], ranges)
    else:
        _require(isinstance(given, kind), f"{name} must be {kind.__name__}, got {given!r}")


def _check_number(name: str, given: Any, kind: type, ranges: Mapping[str, Any]) -> None:
    number = isinstance(given, int if kind is int else int | float) and not isinstance(given, bool)
    low, above, high = (ranges.get(end) for end in ("low", "above", "high"))
    inside = number and math.isfinite(given) and (low is None or given >= low) and (high is None or given <= high)
    ends = [f"of at least {low:g}" if low is not None else "", f"above {above:g}" if above is not None else "",
            f"of at most {high:g}" if high is not None else ""]  # fmt: skip
    what = " and ".join(end for end in ends if end)
    why = f": {ranges['because']}" if ranges.get("because") else ""
    noun = "a whole number" if kind is int else "a number"
    _require(inside and (above is None or given > above), f"{name} must be {noun} {what}, got {given!r}{why}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise BadInput(message)


def _object(kind: type) -> dict[str, Any]:
    hints, described = typing.get_type_hints(kind), _descriptions(kind)
    items = dataclasses.fields(kind)
    missing = dataclasses.MISSING
    required = [item.name for item in items if item.default is missing and item.default_factory is missing]
    properties = {
        item.name: {"description": described.get(item.name, ""), **_of(hints[item.name], item.metadata)}
        for item in items
    }
    found = {"type": "object", "additionalProperties": False, "required": required, "properties": properties}
    return {"description": inspect.cleandoc(kind.__doc__ or "").split("\n")[0], **found}


def _of(hint: Any, ranges: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(hint, types.UnionType):
        parts = [choice for choice in typing.get_args(hint) if choice is not type(None)]
        return {"anyOf": [*(_of(part, ranges) for part in parts), {"type": "null"}]}
    if hint in (int, float):
        names = {"low": "minimum", "above": "exclusiveMinimum", "high": "maximum"}
        ends = {names[end]: ranges[end] for end in names if end in ranges}
        return {"type": "integer" if hint is int else "number", **ends}
    if hint is bool:
        return {"type": "boolean"}
    if hint is str:
        return {"type": "string", "pattern": r"\S"}
    if typing.get_origin(hint) is Literal:
        return {"enum": list(typing.get_args(hint))}
    if typing.get_origin(hint) is Mapping:
        return {"type": "object", "additionalProperties": _of(typing.get_args(hint)[1], ranges)}
    return _object(hint)


def _descriptions(kind: type) -> dict[str, str]:
    """The sentences under "Attributes:" in a docstring, by field."""
    _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
