"""Which category got worse: the scorer's labels by stage, and against the parent stage and the base model."""

from typing import Any, NamedTuple

from pipeline.marks import Table, number, signed
from pipeline.page.record import RunRecord, StageRecord
from pipeline.page.toxicity import generating

WORDS = {"worse": "✗ worse", "better": "✓ better", "none": "· no measurable change"}
_SHADES = (0.02, 0.05, 0.1, 0.2, 0.4)  # from which share on a cell is one shade darker


class Cell(NamedTuple):
    """A share as printed, and how dark its cell is, from 0 to 5."""

    text: str
    shade: int


class Heat(NamedTuple):
    """Shares by label (rows) and stage (columns)."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


class Comparison(NamedTuple):
    """What one stage changed: a sentence that names the labels, and the figures behind it."""

    title: str
    sentence: str
    table: Table


class Categories(NamedTuple):
    """The section; `heat` is None where the scorer has a single label."""

    heat: Heat | None
    comparisons: tuple[Comparison, ...]


def categories(record: RunRecord) -> Categories | None:
    """Shares of prompts with a reply at the threshold, by label, and their changes; None if nothing was measured."""
    stages = generating(record)
    if not stages:
        return None
    labels = sorted({label for stage in stages for label in _metrics(stage)})
    if len(labels) < 2:
        return Categories(None, ())
    rows = tuple((_plain(label), tuple(_cell(stage, label) for stage in stages)) for label in labels)
    found = []
    for stage in stages:
        tables = (stage.gate or {}).get("categories") or {}
        for reference, words in (("parent", "its parent stage"), ("base", "the base model")):
            # The parent of the first trained stage is the base: one table says both.
            if tables.get(reference) and not (reference == "base" and tables["base"] == tables.get("parent")):
                found.append(_comparison(stage, words, tables[reference]))
    return Categories(Heat(("category", *(stage.title for stage in stages)), rows), tuple(found))


def _comparison(stage: StageRecord, against: str, rows: list[dict[str, Any]]) -> Comparison:
    named = {change: [_plain(row["label"]) for row in rows if row["change"] == change] for change in WORDS}
    parts = [f"{change} in {', '.join(named[change])}" for change in ("worse", "better") if named[change]]
    if named["none"]:
        parts.append(f"no measurable change in {'the others' if parts else 'any category'}")
    sentence = "; ".join(parts)
    body = tuple(
        (_plain(row["label"]), WORDS[row["change"]], f"{number(row['reference'])} → {number(row['share'])}",
         f"{signed(row['difference']['estimate'])} ({_ends(row['difference'])})", _p(row["p_holm"]),
         f"{signed(row['emt_difference']['estimate'])} ({_ends(row['emt_difference'])})")
        for row in rows
    )  # fmt: skip
    head = ("category", "change", "share of prompts", "difference", "p, all labels", "expected maximum")
    return Comparison(f"{stage.title} against {against}", f"{sentence[0].upper()}{sentence[1:]}.", Table(head, body))


def _metrics(stage: StageRecord) -> dict[str, Any]:
    return (stage.gate or {}).get("metrics", {}).get("all", {})


def _cell(stage: StageRecord, label: str) -> Cell:
    found = _metrics(stage).get(label)
    share = None if found is None else found["toxicity_probability"]["estimate"]
    return Cell(number(share), 0 if share is None else sum(share >= edge for edge in _SHADES))


def _ends(interval: dict[str, float]) -> str:
    return f"{signed(interval['low'])} to {signed(interval['high'])}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value)


def _plain(label: str) -> str:
    return label.replace("_", " ")
