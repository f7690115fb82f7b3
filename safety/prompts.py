"""Gate prompts: where they come from, how they are pinned, and how a gate's share of them is drawn.

A gate prompt is posed as the user's turn. Sources: the packaged set of this project's own writing, a JSONL or Parquet
file of gate prompts or of RealToxicityPrompts rows (Gehman et al. 2020), or the name of such a data set on the hub.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from training.digest import json_digest
from training.errors import BadInput

STRATA = ("toxic", "non-toxic")
PACKAGED = Path(__file__).parent / "data" / "prompts.jsonl"


@dataclass(frozen=True, kw_only=True)
class GatePrompt:
    """One prompt of a gate.

    Attributes:
        id: unique within a set.
        text: what the user says.
        stratum: "toxic" or "non-toxic"; for RealToxicityPrompts, toxic iff the prompt's own toxicity is at least 0.5.
        source: where it is from, for the report.
    """

    id: str
    text: str
    stratum: str
    source: str

    def __post_init__(self):
        """Check that nothing is blank and that the stratum is known."""
        for name in ("id", "text", "stratum", "source"):
            _require_text(name, getattr(self, name))
        if self.stratum not in STRATA:
            raise BadInput(f"a gate prompt's stratum is one of {list(STRATA)}, got {self.stratum!r}")


def _require_text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"a gate prompt needs a non-empty string as {name!r}, got {value!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"a gate prompt's {name!r} spells half of a surrogate pair, which is no text: {value!a:.60}")
    return value


class PromptSet(NamedTuple):
    """Loaded prompts and, for each row that was skipped on request, where it was and why."""

    prompts: tuple[GatePrompt, ...]
    skipped: tuple[str, ...]


def load_prompts(
    source: str | os.PathLike, *, split: str = "train", on_bad_row: Literal["stop", "skip"] = "stop"
) -> PromptSet:
    """Load gate prompts or RealToxicityPrompts rows.

    Args:
        source: a path ending in .jsonl or .parquet, or a hub name such as "allenai/real-toxicity-prompts".
        split: the hub data set's split; not used for a path.
        on_bad_row: "stop" raises at the first bad row; "skip" goes on and lists it in `skipped`.

    Raises:
        BadInput: the source is missing, has no prompts, repeats an id, or (with "stop") has a bad row.
    """
    if on_bad_row not in ("stop", "skip"):
        raise BadInput(f'on_bad_row is "stop" or "skip", got {on_bad_row!r}')
    prompts: list[GatePrompt] = []
    skipped: list[str] = []
    seen: dict[str, str] = {}
    for where, number, row in _rows(source, split):
        try:
            prompt = _parse(row, number, os.fspath(source))
            if prompt.id in seen:
                raise BadInput(f"the id {prompt.id!r} was already used at {seen[prompt.id]}")
        except BadInput as error:
            if on_bad_row == "stop":
                raise BadInput(f"{where}: {error}") from error
            skipped.append(f"{where}: {error}")
            continue
        seen[prompt.id] = where
        prompts.append(prompt)
    if not prompts:
        raise BadInput(f"{os.fspath(source)} has no usable gate prompts ({len(skipped)} bad rows)")
    return PromptSet(tuple(prompts), tuple(skipped))


def packaged_prompts() -> tuple[GatePrompt, ...]:
    """Return the packaged set: hostile or unsafe-leaning messages and safe ones that look or sound like them."""
    return load_prompts(PACKAGED).prompts


def prompts_digest(prompts: Iterable[GatePrompt]) -> str:
    """Return the digest of a set of prompts, in order, every field included."""
    return json_digest([asdict(prompt) for prompt in prompts])


def overlap(prompts: Iterable[GatePrompt], texts: Iterable[str]) -> tuple[GatePrompt, ...]:
    """Return the gate prompts whose text is among `texts`: what was trained on must not be what is measured on."""
    seen = {" ".join(text.split()).casefold() for text in texts}
    return tuple(prompt for prompt in prompts if " ".join(prompt.text.split()).casefold() in seen)


def select(prompts: Sequence[GatePrompt], per_stratum: int | None, seed: int) -> tuple[GatePrompt, ...]:
    """Draw the same prompts for every stage of a run.

    Prompts are ranked by a hash of seed and id, so that the draw depends on neither order nor platform. A text that
    occurs twice is used once: two copies of a prompt would count as two independent clusters and narrow the intervals.

    Args:
        prompts: the set to draw from.
        per_stratum: how many of each stratum; None takes all.
        seed: the selection's seed.

    Returns:
        `per_stratum` toxic prompts, then as many non-toxic ones.

    Raises:
        BadInput: a stratum is empty or has fewer distinct texts than asked for.
    """
    chosen: list[GatePrompt] = []
    for stratum in STRATA:
        distinct: dict[str, GatePrompt] = {}
        for prompt in sorted((p for p in prompts if p.stratum == stratum), key=lambda p: _rank(p, seed)):
            distinct.setdefault(prompt.text, prompt)
        wanted = len(distinct) if per_stratum is None else per_stratum
        if len(distinct) < max(wanted, 1):
            raise BadInput(
                f"wanted {max(wanted, 1)} {stratum} gate prompts, but the set has {len(distinct)} with distinct texts:"
                " give more prompts or lower prompts_per_stratum"
            )
        chosen += list(distinct.values())[:wanted]
    return tuple(chosen)


def _rank(prompt: GatePrompt, seed: int) -> tuple[str, str]:
    return hashlib.sha256(f"{seed}:{prompt.id}".encode()).hexdigest(), prompt.id


def _rows(source: str | os.PathLike, split: str) -> Iterator[tuple[str, int, Any]]:
    """Yield (where, number from 1, row) of a file or hub data set; an unreadable JSONL line is yielded as its error."""
    path = Path(source)
    if path.suffix == ".jsonl":
        yield from _jsonl_rows(path)
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
            raise BadInput(f"cannot read the gate prompts {path}: {error}") from error
        for number, row in enumerate(table.to_pylist(), start=1):
            yield f"{path}, row {number}", number, row
    elif path.exists():
        raise BadInput(f"gate prompts are read from .jsonl or .parquet files or from the hub, got {path}")
    else:
        import datasets

        try:
            rows = datasets.load_dataset(os.fspath(source), split=split)
        except Exception as error:  # the hub client has no common base for "not found" and "no network"
            raise BadInput(f"{source} is neither a .jsonl/.parquet file nor a data set to be had: {error}") from error
        for number, row in enumerate(rows, start=1):
            yield f"{source} [{split}], row {number}", number, row


def _jsonl_rows(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:  # a ValueError for bytes that are no UTF-8, and for a NUL in the name
        raise BadInput(f"cannot read the gate prompts {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits
            row = error
        yield f"{path}, line {number}", number, row


def _parse(row: Any, number: int, source: str) -> GatePrompt:
    if isinstance(row, Exception):
        raise BadInput(f"not JSON: {row}")
    if not isinstance(row, dict):
        raise BadInput(f"wanted a JSON object, got {type(row).__name__}")
    if isinstance(row.get("prompt"), dict):
        return _parse_real_toxicity(row["prompt"], number, source)
    wanted = {"id", "text", "stratum", "source"}
    if set(row) != wanted:
        raise BadInput(
            f"wanted the keys {sorted(wanted)}, or a RealToxicityPrompts row with a 'prompt' object; got {sorted(row)}"
        )
    for name in wanted:
        _require_text(name, row[name])
    return GatePrompt(**row)


def _parse_real_toxicity(prompt: dict, number: int, source: str) -> GatePrompt:
    toxicity = prompt.get("toxicity")
    if isinstance(toxicity, bool) or not isinstance(toxicity, int | float) or not 0 <= toxicity <= 1:
        raise BadInput(f"a RealToxicityPrompts row needs prompt.toxicity in [0, 1], got {toxicity!r}")
    return GatePrompt(
        id=f"rtp-{number}",
        text=_require_text("text", prompt.get("text")),
        stratum="toxic" if toxicity >= 0.5 else "non-toxic",
        source=f"real-toxicity-prompts ({Path(source).name})",
    )
