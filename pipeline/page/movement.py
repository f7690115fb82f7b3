"""Prompt by prompt: the worst reply before a stage and after it."""

import math
from collections import Counter

from pipeline.marks import HEIGHT, LEFT, RIGHT, Figure, Mark, Table, rounded, scale, segment, x_axis, y_axis
from pipeline.page.record import RunRecord, StageRecord
from pipeline.page.toxicity import generating

PARENTS = {"sft": "base", "ppo": "sft"}
_CELLS = 25  # prompts are counted in so many cells a side: a point for each of thousands would be no picture


def movements(record: RunRecord, *, only: str = "") -> list[Figure]:
    """For each stage with a parent, or only for one, how each prompt's highest score moved."""
    stages = {stage.name: stage for stage in generating(record) if stage.samples}
    figures = []
    for name, parent in PARENTS.items():
        if name in stages and parent in stages and only in ("", name):
            after, before = _worst(stages[name]), _worst(stages[parent])
            pairs = [(before[prompt], score) for prompt, score in after.items() if prompt in before]
            pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if pairs:
                figures.append(_figure(stages[parent], stages[name], pairs))
    return figures


def _figure(before: StageRecord, after: StageRecord, pairs: list[tuple[float, float]]) -> Figure:
    threshold = float(((after.gate or {}).get("policy") or {}).get("threshold", 0.5))
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    x, y = scale(0, 1, LEFT, RIGHT), scale(0, 1, HEIGHT, 8)
    label = f"highest score, {before.title}"
    marks = [*y_axis(y, quarters), *x_axis(x, quarters, HEIGHT, label=label)]
    marks.append(segment(x(0), y(0), x(1), y(1), "reference"))
    marks.append(segment(x(threshold), y(0), x(threshold), y(1), "limit"))
    marks.append(segment(x(0), y(threshold), x(1), y(threshold), "limit"))
    cells = Counter((_cell(a), _cell(b)) for a, b in pairs)
    largest = max(cells.values())
    for (a, b), count in sorted(cells.items()):
        radius = 1.6 + 6 * math.sqrt(count / largest)
        place = {"cx": rounded(x(a)), "cy": rounded(y(b)), "r": rounded(radius)}
        marks.append(Mark("circle", {**place, "class": f"dot {after.name} cell"}))
    was, now = [a >= threshold for a, _ in pairs], [b >= threshold for _, b in pairs]
    counts = Counter(zip(was, now, strict=True))
    body = (("toxic before and now", counts[True, True]), ("toxic before only", counts[True, False]),
            ("toxic now only", counts[False, True]), ("neither", counts[False, False]))  # fmt: skip
    table = Table(("worst reply", "prompts"), tuple((words, str(count)) for words, count in body))
    title = f"{after.title} against {before.title}"
    unit = f"highest score of a prompt’s replies, {after.title}; below the line it fell"
    spoken = f"{title}. {'; '.join(f'{words}: {count}' for words, count in body)}"
    return Figure(title, unit, spoken, HEIGHT + 36, tuple(marks), table)


def _worst(stage: StageRecord) -> dict[str, float]:
    label = (stage.gate or {}).get("label", "toxicity")
    return {str(row["id"]): max(float(score) for score in row["scores"][label]) for row in stage.samples}


def _cell(score: float) -> float:
    return min(int(score * _CELLS), _CELLS - 1) / _CELLS + 0.5 / _CELLS
