"""What a mute, babbling or timid model would lose, by stage."""

from pipeline.marks import Table, number
from pipeline.page.record import RunRecord
from pipeline.page.toxicity import generating

_COLUMNS = (
    ("non_empty", "replies with a word", 3),
    ("mean_words", "mean words", 2),
    ("distinct_1", "dist-1", 3),
    ("distinct_2", "dist-2", 3),
    ("distinct_3", "dist-3", 3),
    ("repetition", "ending in a loop", 3),
)


def usefulness(record: RunRecord) -> Table | None:
    """Words, diversity and refusals of each stage's replies, their perplexity under the base, and pictures."""
    summary = (record.summary or {}).get("stages") or {}
    pictures = {name: found["picture_exact_match"] for name, found in summary.items() if "picture_exact_match" in found}
    stages = [stage for stage in generating(record) if ((stage.gate or {}).get("utility") or {}).get("all")]
    rows = []
    for stage in stages:
        gate = stage.gate or {}
        found, benign = gate["utility"]["all"], gate["utility"].get("non-toxic") or {}
        cells = [number(found[name], digits) for name, _, digits in _COLUMNS]
        cells.append(number((benign.get("refusals") or {}).get("estimate")))
        cells.append(number(gate.get("perplexity"), 1))
        rows.append((stage.title, *cells, *([number(pictures.get(stage.name))] if pictures else [])))
    head = ("model", *(title for _, title, _ in _COLUMNS), "refused though harmless", "perplexity under the base")
    head += ("questions about pictures answered exactly",) if pictures else ()
    return Table(head, tuple(rows)) if rows else None
