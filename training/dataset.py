"""Rows from JSONL, Parquet or the hub; a bad row is named by file and line, never dropped silently."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from training.errors import BadInput

T = TypeVar("T")

# What JSON may spell and no text can hold: half of a surrogate pair. Whole pairs look alike: this finds suspects.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Row:
    """One row and where it stands: `place` is "file:line", `folder` is where its relative media paths start."""

    values: Mapping[str, Any]
    place: str
    folder: Path


def read_rows(
    source: str | Path, *, split: str = "train", on_bad_row: str | None = None, warn: Callable[[str], None] = print
) -> list[Row]:
    """Reads a .jsonl or .parquet file, or a data set by its hub name.

    Args:
        source: what to read.
        split: of a data set on the hub.
        on_bad_row: the option of that name: with "skip" a line that is not a JSON object is counted and reported, with
            "stop" it ends the run. None where there is no such option: it ends the run, and the error speaks of none.
        warn: told at the end how many were skipped.

    Raises:
        BadInput: when nothing is there, a line is not a JSON object, or there are no rows.
    """
    path = Path(source)
    if not str(source).strip():
        raise BadInput(f"a data set is a .jsonl or .parquet file or the name of one on the hub, not {source!r}")
    if path.suffix in (".jsonl", ".json"):
        rows = _read_jsonl(path, on_bad_row, warn)
    elif path.suffix == ".parquet" or not path.suffix:
        rows = _read_with_datasets(path, str(source), split)
    else:
        raise BadInput(f"{source} is neither .jsonl nor .parquet nor the name of a data set on the hub")
    if not rows:
        raise BadInput(f"{source} has no rows")
    return rows


def _read_jsonl(path: Path, on_bad_row: str | None, warn: Callable[[str], None]) -> list[Row]:
    try:
        # Not splitlines(): it also breaks at U+2028 and others that JSON allows inside a string.
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise BadInput(f"the data file {path} does not exist") from error
    except (OSError, ValueError) as error:  # a ValueError for bytes that are no UTF-8, and for a NUL in the name
        raise BadInput(f"the data file {path} cannot be read as UTF-8 text: {error}") from error
    rows, bad = [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(Row(_object(line), f"{path}:{number}", path.parent))
        except BadInput as error:
            bad.append(f"{path}:{number} {error}")
            if on_bad_row != "skip":
                raise BadInput(bad[0] + _hint(on_bad_row)) from error
    if bad:
        warn(f"{len(bad)} of {len(rows) + len(bad)} lines left out; the first: {bad[0]}")
    return rows


def _object(line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"is a {type(values).__name__}, and a row is a JSON object")
    if _SURROGATE.search(line):
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise BadInput("spells half of a surrogate pair, which is no text") from error
    return values


def _read_with_datasets(path: Path, name: str, split: str) -> list[Row]:
    import datasets

    try:
        if path.suffix == ".parquet":
            if not path.exists():
                raise BadInput(f"the data file {path} does not exist")
            data = datasets.Dataset.from_parquet(str(path))
            # A damaged picture is one bad row, and a path starts at the file's folder and nowhere else.
            _leave_encoded(data.info.features, datasets.Image)
        else:
            data = from_hub(name, split)
        # `datasets` would decode these with torch.
        _leave_encoded(data.info.features, datasets.Audio | datasets.Video)
        # Arrow looks at the text, and `datasets` decodes the pictures, only as rows are taken.
        rows = list(cast(Iterator[Mapping[str, Any]], iter(data)))
    except BadInput:
        raise
    except Exception as error:  # datasets wraps arrow, network and schema errors in many types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(f"{name} can be read neither from this machine nor from the hub: {reason}") from error
    return [Row(values, f"{name}:{number}", path.parent) for number, values in enumerate(rows, 1)]


def from_hub(name: str, split: str) -> Any:
    """A data set by its name on the hub. A line on stderr says what is waited for, half a minute if it is not there."""
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # a line for each try: the error tells the end
    print(f"{name} is no file here: asking the hub for a data set of that name", file=sys.stderr)
    return datasets.load_dataset(name, split=split)


def _leave_encoded(features: Any, kinds: Any) -> None:
    """Has media of these kinds given back as they are stored, `{"bytes", "path"}`, however deep they lie."""
    if isinstance(features, kinds):
        features.decode = False
    elif isinstance(features, Mapping):
        for feature in features.values():
            _leave_encoded(feature, kinds)
    elif (feature := getattr(features, "feature", None)) is not None:  # of a list
        _leave_encoded(feature, kinds)


def convert_rows(
    rows: Sequence[Row],
    convert: Callable[[Row], T],
    *,
    on_bad_row: str | None = None,
    warn: Callable[[str], None] = print,
) -> list[T]:
    """Converts rows; a row that raises BadInput stops the run, or with "skip" is counted and reported at the end.

    `on_bad_row` is the option of that name, "stop" or "skip", or None where there is none: then a row stops the run.

    Raises:
        BadInput: with the place and the reason of the first bad row, or when no row is left.
    """
    if on_bad_row not in ("stop", "skip", None):
        raise BadInput(f"on_bad_row is 'stop' or 'skip', not {on_bad_row!r}")
    converted, bad = [], []
    for row in rows:
        try:
            converted.append(convert(row))
        except BadInput as error:
            bad.append(f"{row.place}: {error}")
            if on_bad_row != "skip":
                raise BadInput(bad[0] + _hint(on_bad_row)) from error
    if bad:
        warn(f"{len(bad)} of {len(rows)} rows left out; the first: {bad[0]}")
    if not converted:
        raise BadInput(f"no usable row is left; the first was {bad[0]}")
    return converted


def _hint(on_bad_row: str | None) -> str:
    """What to do about a bad row where there is an option for it."""
    return "" if on_bad_row is None else " (on_bad_row=skip leaves such rows out)"


def epoch_order(count: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order of rows in one epoch: a permutation that follows from seed and epoch alone."""
    return np.random.default_rng((seed, epoch)).permutation(count)


def batch_indices(step: int, *, count: int, batch_size: int, seed: int) -> np.ndarray:
    """The rows of one step's batch; epochs run into one another, so that every batch is full.

    A pure function of the step: a resumed run goes on with exactly the rows that an uninterrupted one would see.
    """
    first = step * batch_size
    places = np.arange(first, first + batch_size)
    orders = {epoch: epoch_order(count, seed=seed, epoch=int(epoch)) for epoch in np.unique(places // count)}
    return np.array([orders[place // count][place % count] for place in places])
