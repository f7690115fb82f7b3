"""Configs of given values: jsonargparse checks and converts them, and what was not given keeps its default."""

import argparse
import dataclasses
import functools
import re
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from pipeline.option_types import describe_type, group_of, is_text, option_types
from training.errors import BadInput

Config = TypeVar("Config")


class _HelpFormatter(DefaultHelpFormatter):
    """Leaves room for dotted names, and shows `from_` as `from`, the way it is written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        return re.sub(r"(\w)_(?=[ ,]|$)", r"\1", super()._format_action_invocation(action))


def parser_of(config_class: type) -> ArgumentParser:
    """What jsonargparse makes of a config: an option for each field, and groups of them."""
    parser = ArgumentParser(exit_on_error=False, add_help=False, formatter_class=_HelpFormatter)
    parser.add_class_arguments(config_class)
    groups = {name for name, kind in option_types(config_class).items() if group_of(kind) is not None}
    for action in parser._actions:
        if action.dest in groups:  # jsonargparse would list the group as an option that takes a file
            action.help = argparse.SUPPRESS
    return parser


# Kept: to make one takes longer than to read with it, and in a run's folder a command reads its options twice.
_reader = functools.cache(parser_of)


def built(
    config_class: type[Config], values: Mapping[str, Any], kinds: Mapping[str, Any], origin: Mapping[str, str]
) -> Config:
    """A config of what was given.

    Args:
        config_class: a frozen dataclass.
        values: of the options that were given, by their dotted names.
        kinds: the types of all options, see option_types.
        origin: of each given option, words for an error to end with.

    Raises:
        BadInput: a value of the wrong type, a missing required option, or a value that the config itself refuses.
    """
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *groups, leaf = key.split(".")
        place = nested
        for group in groups:
            place = place.setdefault(group, {})
        is_null = value is None or (value == "null" and not is_text(kinds[key]))
        if is_null and type(None) not in typing.get_args(kinds[key]):
            raise BadInput(f"option {key.rstrip('_')} wants {describe_type(kinds[key])}, was given null{origin[key]}")
        place[leaf] = None if is_null else value
    try:
        # Only what was given is read: to have the defaults read, too, takes several times as long.
        given = _reader(config_class).parse_object(nested, defaults=False)
    except argparse.ArgumentError as error:
        raise BadInput(_explain(str(error), values, kinds, origin)) from error
    except OverflowError as error:  # JSON and YAML know whole numbers beyond any float
        raise BadInput(f"an option is a number that is too large: {error}") from error
    try:
        return _assembled(config_class, None, given)
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from error


def _assembled(config_class: type, default: Any, given: Namespace) -> Any:
    """A config with what was given; the rest is that of the default, without one that of the class."""
    hints, values = typing.get_type_hints(config_class), dict[str, Any]()
    for field in dataclasses.fields(config_class):
        if field.name not in given:
            continue
        value, group = given[field.name], group_of(hints[field.name])
        if group is not None and isinstance(value, Namespace):
            value = _assembled(group, _default(field) if default is None else getattr(default, field.name), value)
        values[field.name] = value
    return config_class(**values) if default is None else dataclasses.replace(default, **values)


def _default(field: dataclasses.Field) -> Any:
    """The default of a field that is a group of options; None if there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _explain(message: str, values: Mapping[str, Any], kinds: Mapping[str, Any], origin: Mapping[str, str]) -> str:
    """Rewords jsonargparse's error: which option, what it wants, what it was given, where."""
    if required := re.search(r"required: (.+)", message):
        names = required.group(1).replace("_,", ",").removesuffix("_")
        return f"missing required option {names}; give it as {names.split(',')[0]}=VALUE"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    for key in (".".join(keys), *keys):
        if key in values:
            given = values[key]
            return f"option {key.rstrip('_')} wants {describe_type(kinds[key])}, was given {given!r}{origin[key]}"
    return " ".join(message.split())
