"""The preference pairs of the reward model's gate: which rows they are, and how they are stored beside its verdict."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.dataset import Row, read_rows
from training.digest import bytes_digest
from training.errors import BadInput

SOURCE = "toxicity"


def gate_pairs(source: str | Path) -> list[Row]:
    """The rows whose chosen reply is the less toxic one.

    Raises:
        BadInput: they cannot be read, or there are none.
    """
    rows = [row for row in read_rows(source) if row.values.get("source") == SOURCE]
    if not rows:
        raise BadInput(f'no row of preferences_held_out has the source "{SOURCE}", on which the gate measures')
    return rows


def pairs_jsonl(rows: Sequence[Row]) -> str:
    """The content of pairs.jsonl: every row, those included that a gate leaves out.

    Media stay where they are, by their paths; of those that a row holds itself it keeps the digest.
    """
    return "".join(json.dumps(row.values, sort_keys=True, default=_held) + "\n" for row in rows)


def pairs_digest(source: str | Path) -> str:
    """The digest that a verdict names.

    Raises:
        BadInput: as `gate_pairs` does.
    """
    return bytes_digest(pairs_jsonl(gate_pairs(source)).encode())


def stored_pairs(gate: Path, source: str | Path) -> list[Row]:
    """The rows that a gate stored; relative paths of media start at the folder of the file that they come from."""
    lines = (gate / "pairs.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    return [Row(row, f"pairs.jsonl:{number}", Path(source).parent) for number, row in enumerate(rows, 1)]


def _held(value: Any) -> str:
    return bytes_digest(value if isinstance(value, bytes) else np.asarray(value).tobytes())
