"""model_card.md: the last gated model of a run as a Hugging Face model card, with its toxicity table.

Front matter is what the hub reads (`model-index`), the text what people read. Text of others, such as the name of a
prompt set, is escaped: a card is rendered as HTML.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline import __version__
from pipeline.marks import Figure, Table, number
from pipeline.page import categories, toxicity, usefulness, verdicts
from pipeline.page.record import RunRecord, StageRecord, visible

_METRICS = {
    "emt": ("expected_maximum_toxicity", "Expected maximum toxicity"),
    "toxicity_probability": ("toxicity_probability", "Share of prompts with a toxic reply"),
    "toxic_fraction": ("toxic_fraction", "Share of toxic replies"),
}


def model_card(record: RunRecord) -> str:
    """The card of the last stage whose gate measured replies; "" if there is none or its files are of another shape."""
    stages = toxicity.generating(record)
    if not stages or stages[-1].verdict is None:
        return ""
    try:
        return _card(record, stages[-1])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return ""  # the page says what is wrong with these files; a card that guesses is worse than none


def _card(record: RunRecord, stage: StageRecord) -> str:
    verdict, gate = stage.verdict, stage.gate or {}
    assert verdict is not None
    alone = replace(record, stages=(stage,))
    found = categories.categories(alone)
    environment = Environment(
        loader=PackageLoader("pipeline"), autoescape=False, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if type(value) is not str else visible(value),
    )  # fmt: skip
    environment.filters |= {"plain": plain, "table": markdown_table}
    sets = gate["prompts"]["sets"]
    return environment.get_template("model_card.md.j2").render(
        front=yaml.safe_dump(_front(record, stage), sort_keys=False, allow_unicode=True, width=120),
        name=record.name,
        title=stage.title,
        line=verdicts.line(stage),
        scorer=toxicity.scorer(alone),
        prompts=gate["prompts"],
        sampling=verdict.sampling or {},
        levels=_together(toxicity.levels(alone)),
        differences=_together(toxicity.differences(alone)),
        categories=found.comparisons if found is not None else (),
        useful=usefulness.usefulness(alone),
        unprompted=gate.get("unprompted"),
        label=gate["label"],
        number=number,
        stage=stage,
        verdict=verdict,
        sets=Table(("source", "licence", "prompts", "digest"),
                   tuple((s["source"], s["licence"], str(s["prompts"]), s["digest"]) for s in sets)),
        version=__version__,
    )  # fmt: skip


def _front(record: RunRecord, stage: StageRecord) -> dict[str, Any]:
    """What the hub reads; each group of prompts is a data set to it."""
    gate = stage.gate or {}
    sources = ", ".join(origin["source"] for origin in gate["prompts"]["sets"]) or "gate prompts"
    results = []
    for group, labels in gate["metrics"].items():
        values = labels[gate["label"]]
        metrics = [
            {"type": kind, "name": f"{name} ({gate['scorer']['name']}, {gate['label']})",
             "value": round(float(values[metric]["estimate"]), 4)}
            for metric, (kind, name) in _METRICS.items()
        ]  # fmt: skip
        data = {"name": f"{sources}: {group}", "type": "safety-gate-prompts"}
        results.append({"task": {"type": "text-generation"}, "dataset": data, "metrics": metrics})
    return {
        "library_name": "theodolite", "pipeline_tag": "text-generation", "tags": ["rlhf", "safety", "toxicity"],
        "model-index": [{"name": f"{record.name}-{stage.name}", "results": results}],
    }  # fmt: skip


def _together(figures: Sequence[Figure]) -> Table | None:
    """The tables of several figures as one, the figure's title before each row."""
    if not figures:
        return None
    rows = tuple((figure.title, *row) for figure in figures for row in figure.table.rows)
    return Table(("metric", *max((figure.table.head for figure in figures), key=len)), rows)


def plain(text: Any) -> str:
    """Text in which Markdown and HTML see nothing but text, on one line."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|~!])", r"\\\1", line)


def markdown_table(content: Table) -> str:
    """A table in Markdown; shorter rows are filled up."""
    wide = len(content.head)
    lines = [content.head, ("---",) * wide, *(tuple(row) + ("",) * (wide - len(row)) for row in content.rows)]
    rule = [" | ".join(cells if i == 1 else map(plain, cells)) for i, cells in enumerate(lines)]
    return "\n".join(f"| {line} |" for line in rule)
