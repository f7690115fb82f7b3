"""Options of a command: a frozen dataclass from a YAML file and dotted overrides.

A command's config dataclass is the only list of its options; the parser, the help page and the YAML form are derived
from it. An override is written `ppo.kl_coef=0.02`, `--ppo.kl_coef=0.02` or `--ppo.kl_coef 0.02`, dashes and underscores
alike; what comes later wins, and every override wins over the file. A field that would be a Python keyword ends in an
underscore (`from_`) and is written without it (`--from`).
"""

import argparse
import dataclasses
import enum
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from pipeline.option_types import group_of, known_name, option_types
from pipeline.option_values import built, parser_of
from training.errors import BadInput

Config = TypeVar("Config")

_OVERRIDE = re.compile(r"(?:--)?([A-Za-z_][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)
_FLAG = re.compile(r"--([A-Za-z_][\w-]*(?:\.[\w-]+)*)")
_BOOLEANS = {"true", "false", "yes", "no", "on", "off"}


def parse(config_class: type[Config], arguments: Sequence[str], *, positional: str | None = None) -> Config:
    """Builds a config from command line arguments.

    Args:
        config_class: A frozen dataclass; fields that are dataclasses themselves become groups (`ppo.kl_coef`).
        arguments: What follows the command's name: `--config FILE.yaml` and overrides, in any order.
        positional: The fields that bare arguments set, one after the other, separated by spaces; "config" reads its
            argument as the YAML file, and one that ends in `...` takes all that are left as its list.

    Raises:
        BadInput: An unknown option, a value of the wrong type, a missing required option, an unreadable file, or a
            value that the config itself refuses.
    """
    kinds = option_types(config_class)
    files, overrides = _split(arguments, kinds, positional)
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        for key, value in _flatten(read_yaml(file), kinds, f" (in {file})").items():
            _put(values, key, value)
            origin[key] = f" (in {file})"
    for key, value in overrides:
        known = known_name(key, kinds, "")
        if group_of(kinds[known]) is not None and value.strip() not in ("null", ""):
            for leaf, part in _flatten(_group_from_text(known, value, kinds), kinds, "").items():
                _put(values, leaf, part)
                origin[leaf] = ""
        else:
            _put(values, known, value)
            origin[known] = ""
    return built(config_class, values, kinds, origin)


def to_yaml(config: Any) -> str:
    """The config as YAML that `parse` reads back into an equal config."""
    return yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True, width=120)


def help_page(config_class: type, *, usage: str, description: str, example: str) -> str:
    """The text of `--help` for one command; every option's sentence comes from the config's docstrings."""
    parser = parser_of(config_class)
    parser.usage, parser.description, parser.epilog = usage, description, f"example: {example}"
    reading = parser.add_argument_group("Reading options")
    hidden = argparse.SUPPRESS  # these two have no default worth showing
    words = "read options from this file; overrides win over it"
    reading.add_argument("--config", metavar="FILE.yaml", default=hidden, help=words)
    reading.add_argument("--help", action="store_const", const=True, default=hidden, help="show this page")
    return re.sub(r"<class '(\w+)'>", r"\1", parser.format_help())


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Reads a mapping from a YAML file.

    Raises:
        BadInput: The file cannot be read, is not YAML, gives a key twice, or is not a mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a ValueError for bytes that are no UTF-8, and for a NUL in the name
        raise BadInput(f"cannot read the config {path}: {getattr(error, 'strerror', None) or error}") from error
    try:
        content = _UniqueKeyLoader(text).get_single_data()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # the last ones for a date of no calendar,
        # a key that is a list, and brackets without end
        raise BadInput(f"the config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise BadInput(f"the config {path} must hold options, one `name: value` a line, but is a {kind}")
    return content


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                problem = f"{key_node.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _split(
    arguments: Sequence[str], kinds: Mapping[str, Any], positional: str | None
) -> tuple[list[str], list[tuple[str, Any]]]:
    """Sorts arguments into config files and (name, text) overrides; a list of bare arguments stays one."""
    files: list[str] = []
    overrides: list[tuple[str, Any]] = []
    waiting, listed = (positional or "").split(), list[str]()
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if match := _OVERRIDE.fullmatch(token):
            name, value = match.groups()
        elif match := _FLAG.fullmatch(token):
            name = match.group(1)
            known = "" if name == "config" else known_name(name, kinds, "")
            if kinds.get(known) is bool and not (rest and rest[0].lower() in _BOOLEANS):
                value = "true"
            elif rest and not rest[0].startswith("--"):
                value = rest.pop(0)
            else:
                raise BadInput(f"option --{name} needs a value, for example --{name}=VALUE")
        elif waiting and not token.startswith("-"):
            name, value = waiting[0], token
            if name.endswith("..."):
                listed.append(token)
                continue
            waiting.pop(0)
        else:
            raise BadInput(f"did not understand {token!r}: write options as name=value, --name=value or --name value")
        if name == "config":
            files.append(value)
        else:
            overrides.append((name, value))
    if listed:
        overrides.append((waiting[0].removesuffix("..."), listed))
    return files, overrides


def _flatten(content: Mapping[str, Any], kinds: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    """Turns nested groups into dotted names; mappings that are values themselves stay whole."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = known_name(f"{prefix}{key}", kinds, where)
        if group_of(kinds[name]) is None or value is None:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat.update(_flatten(value, kinds, where, f"{name}."))
        else:
            raise BadInput(f"option {name} is a group of options, not {value!r}{where}")
    return flat


def _group_from_text(name: str, text: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    if not isinstance(value, dict):
        inside = next((kind for kind in kinds if kind.startswith(f"{name}.")), f"{name}.NAME")
        raise BadInput(f"option {name} is a group of options, not {text!r}; set one of them, like {inside}=VALUE")
    return {name: value}


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets an option, undoing an earlier null of its group and earlier members of a group set to null."""
    for other in list(values):
        if key.startswith(f"{other}.") or other.startswith(f"{key}."):
            del values[other]
    values[key] = value


def _plain(value: Any) -> Any:
    """A config's value in YAML's own types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value
