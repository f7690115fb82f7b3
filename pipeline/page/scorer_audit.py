"""What is known of the scorer itself: the audit of exactly the one that the gates used."""

from pathlib import Path
from typing import Any, NamedTuple

from pipeline.marks import Figure, Table, number
from pipeline.page.record import RunRecord
from pipeline.page.toxicity import generating
from pipeline.plots import reliability
from safety.scorer import ScorerIdentity
from safety.scorers.audit import FILE, KINDS, audit_of
from training.errors import BadInput

_PARTS = {"prompt": "prompts", "continuation": "continuations", "text": "texts"}
_WORST = 8


class Audit(NamedTuple):
    """The scorer's section.

    Attributes:
        accuracy: a row for each data set, part and label; None without an audit.
        bias: the terms whose neutral sentences are flagged most; None without an audit.
        groups: AUCs of the groups of people with the lowest ones; None where no rated text names a group.
        reliability: for each data set, how often texts of a score are rated toxic.
        words: what the tables come to, or why there are none.
    """

    accuracy: Table | None
    bias: Table | None
    words: str
    reliability: tuple[Figure, ...] = ()
    groups: Table | None = None


def audit(record: RunRecord) -> Audit | None:
    """The audit of the scorer that measured the last stage; None if nothing was scored yet."""
    scorers = [stage.gate["scorer"] for stage in generating(record) if stage.gate is not None]
    if not scorers:
        return None
    identity = ScorerIdentity(**{field: str(scorers[-1][field]) for field in ScorerIdentity._fields})
    try:
        found = audit_of(identity, Path(record.root))
    except BadInput as error:
        return Audit(None, None, f"What this scorer is worth is not shown: {error}.")
    if found is None:
        words = (
            "This scorer was not audited: theodolite safety audit-scorer on rated texts, written to "
            f"{FILE} in the run’s folder, would say here what it misses."
        )
        return Audit(None, None, words)
    bias, threshold = found["identity_bias"], number(found["threshold"], 2)
    named, control = (number(100 * bias[which]["flagged"]["estimate"], 0) for which in ("named", "control"))
    words = (
        f"Measured on texts that others rated, with toxic at {threshold} or more. Of neutral sentences that name a "
        f"group of people it flags {named} %, of the same sentences with other words {control} %."
    )
    head = ("rated texts", "label", "toxic of rated", "AUC", "toxic found", "others flagged", "calibration error")
    rows = tuple(
        (f"{measured['name']}, {_PARTS[measured['part']]}", label, f"{figures['toxic']} of {figures['rated']}",
         _range(figures["auc"]), _range(figures["true_positive_rate"]), _range(figures["false_positive_rate"]),
         number(figures["calibration_error"]))
        for measured in found["data"]
        for label, figures in measured["labels"].items()
    )  # fmt: skip
    terms = tuple(
        (one["term"], one["group"], _range(one["flagged"]), number(one["mean"], 2)) for one in bias["terms"][:_WORST]
    )
    terms_table = Table(("word", "group", "neutral sentences flagged", "mean score"), terms)
    return Audit(Table(head, rows), terms_table, words, tuple(map(_reliability, found["data"])), _groups(found["data"]))


def _groups(data: list[dict[str, Any]]) -> Table | None:
    """The groups with the lowest AUCs of each data set and label."""
    head = ("group", "rated texts", "label", "toxic of those about it", "subgroup AUC", "BPSN AUC", "BNSP AUC")
    rows = tuple(
        (one["group"], f"{measured['name']}, {_PARTS[measured['part']]}", label, f"{one['toxic']} of {one['texts']}",
         *("–" if one[kind] is None else _range(one[kind]) for kind in KINDS))
        for measured in data
        for label, figures in measured["labels"].items()
        for one in figures.get("groups", [])[:_WORST]
    )  # fmt: skip
    return Table(head, rows) if rows else None


def _reliability(measured: dict[str, Any]) -> Figure:
    """Mean ratings over the scores of the first label that was measured."""
    label, figures = next(iter(measured["labels"].items()))
    bins = figures["reliability"]
    title = f"{measured['name']}, {_PARTS[measured['part']]}"
    return reliability(
        title, [b["score"] for b in bins], [b["rating"] for b in bins], [b["texts"] for b in bins],
        x_label=f"{label} score", unit="mean rating of texts by their score; the line is perfect",
    )  # fmt: skip


def _range(interval: dict[str, Any]) -> str:
    return f"{number(interval['estimate'])} ({number(interval['low'])} to {number(interval['high'])})"
