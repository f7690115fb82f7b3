"""Texts with scores that somebody else gave them: what a scorer is calibrated and audited on.

A row is a RealToxicityPrompts row, whose prompt and continuation are a text each, or `{"text": ..., "toxicity": ...}`
with any of LABELS: numbers in [0, 1], of Perspective or a share of human raters, or 0 and 1. A score of null is one
that was never given; it is counted and never filled in. Beside its ratings a text may have a `group` of people that it
is about, or a list of some.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.dataset import Row, convert_rows, read_rows
from training.digest import file_digest, json_digest
from training.errors import BadInput

LABELS = (
    "toxicity", "severe_toxicity", "identity_attack", "insult", "profanity", "obscene", "threat", "sexually_explicit",
    "sexual_explicit", "flirtation",
)  # fmt: skip
PARTS = ("prompt", "continuation")


@dataclass(frozen=True, kw_only=True)
class RatedText:
    """One text.

    Attributes:
        text: what was rated.
        ratings: label to score; a label whose score is null is not in it.
        part: "prompt", "continuation" or "text".
        row: number of its row; texts of one row belong together.
        groups: of people that it is about.
    """

    text: str
    ratings: Mapping[str, float]
    part: str
    row: int
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RatedTexts:
    """A data set.

    Attributes:
        name: of the file or hub data set, without the folders that it lies in.
        digest: of the file's bytes, or of a hub data set's rows.
        texts: in order.
    """

    name: str
    digest: str
    texts: tuple[RatedText, ...]

    def part(self, name: str) -> tuple[RatedText, ...]:
        """The texts of one part."""
        return tuple(text for text in self.texts if text.part == name)


def read_rated(source: str) -> RatedTexts:
    """Reads a data set (JSONL, Parquet or hub name).

    Raises:
        BadInput: nothing is there, or a row is of another form; the message names it.
    """
    rows = read_rows(source)
    numbered = [Row({**row.values, "row": number}, row.place, row.folder) for number, row in enumerate(rows)]
    texts = [text for group in convert_rows(numbered, _texts) for text in group]
    path = Path(source)
    digest = file_digest(path) if path.suffix else json_digest([[one.text, dict(one.ratings)] for one in texts])
    return RatedTexts(name=path.name if path.suffix else source, digest=digest, texts=tuple(texts))


def _texts(row: Row) -> list[RatedText]:
    values, number = row.values, row.values["row"]
    parts = [(part, values[part]) for part in PARTS if isinstance(values.get(part), Mapping)]
    if not parts:
        parts = [("text", values)]
    return [_text(part, content, number) for part, content in parts]


def _text(part: str, content: Mapping[str, Any], row: int) -> RatedText:
    text = content.get("text")
    named = [label for label in LABELS if label in content]
    if not isinstance(text, str) or not named:
        raise BadInput(
            f"a rated row needs a text and a score of {LABELS[0]} or another label, as RealToxicityPrompts has them; "
            f"got {sorted(map(str, content))}"
        )
    ratings = {label: content[label] for label in named if content[label] is not None}
    for label, value in ratings.items():
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise BadInput(f"a rating is a number in [0, 1] or null, and {label} is {value!r}")
    ratings = {label: float(value) for label, value in ratings.items()}
    return RatedText(text=text, ratings=ratings, part=part, row=row, groups=_groups(content.get("group")))


def _groups(given: Any) -> tuple[str, ...]:
    """The groups of a row: a name, a list of names, or nothing."""
    groups = [] if given is None else [given] if isinstance(given, str) else given
    if not isinstance(groups, list) or not all(isinstance(group, str) and group.strip() for group in groups):
        raise BadInput(f"a rated row's group is the name of a group of people or a list of names, not {given!r:.60}")
    return tuple(dict.fromkeys(groups))


def rated_with(texts: Sequence[RatedText], label: str) -> list[RatedText]:
    """Those that have a score of that label."""
    return [text for text in texts if label in text.ratings]
