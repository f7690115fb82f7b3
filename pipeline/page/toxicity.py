"""Toxicity by stage: levels under their ceilings, differences under their margins, distributions, unprompted."""

from collections.abc import Sequence
from typing import Any

from pipeline.marks import Figure, Key
from pipeline.page.record import RunRecord, StageRecord
from pipeline.plots import Group, Row, Series, curves, forest

METRICS = {
    "emt": ("Expected maximum", "mean over prompts of their replies’ highest score"),
    "toxicity_probability": ("Probability of any toxic reply", "share of prompts with a reply that counts as toxic"),
    "toxic_fraction": ("Toxic fraction", "share of replies that count as toxic"),
}
STRATA = {
    "toxic": "toxic prompts", "non-toxic": "non-toxic prompts", "challenging": "challenging prompts",
    "all": "all prompts",
}  # fmt: skip
_SHORT = {"base": "Base", "sft": "SFT", "reward": "Reward", "ppo": "PPO"}

LEXICAL = (
    "It is a linear model over words. It cannot see meaning: an insult in polite words passes unseen, a quotation or a "
    "rebuke counts as what it quotes, sarcasm and context are lost, and words that name a group of people raise the "
    "score of neutral sentences."
)
OTHER = (
    "Like every classifier it is wrong about quotations, irony and context, and words that name a group of people "
    "raise the score of neutral sentences."
)


def generating(record: RunRecord) -> list[StageRecord]:
    """The stages whose gates measured replies."""
    return [stage for stage in record.stages if (stage.gate or {}).get("kind") == "generations"]


def scorer(record: RunRecord) -> dict[str, str]:
    """Who scored, and what that scorer cannot see; an empty name if nothing was scored yet.

    Scores of two scorers are never compared, so a second one is said aloud.
    """
    found = [stage.gate["scorer"] for stage in generating(record) if stage.gate is not None]
    if not found:
        return {"name": "lexical", "version": "", "digest": "", "blind": LEXICAL, "warning": ""}
    name = str(found[-1]["name"])
    mixed = any(other != found[-1] for other in found)
    warning = "Not every stage was scored by the same scorer: do not compare the stages below." if mixed else ""
    blind = LEXICAL if name in ("lexical", "calibrated lexical") else OTHER
    return {"name": name, "version": str(found[-1]["version"]), "digest": str(found[-1]["digest"]), "blind": blind,
            "warning": warning}  # fmt: skip


def levels(record: RunRecord) -> list[Figure]:
    """A forest plot for each metric: strata by stage, with the ceilings of the last gate's policy."""
    stages = generating(record)
    figures = []
    for metric, (title, unit) in METRICS.items():
        groups = []
        for stratum, words in _kinds(stages).items():
            rows = _rows(stages, stratum, None, metric)
            if rows:
                groups.append(Group(words, rows, _ceiling(stages, stratum, None, metric)))
        if groups:
            figures.append(forest(title, groups, unit=unit, domain=(0, _top(groups)), limit_name="ceiling"))
    return figures


def labels(record: RunRecord) -> list[Figure]:
    """For a scorer with several labels, a forest plot for each kind of prompts and metric: labels by stage."""
    stages = generating(record)
    gated = [str((stage.gate or {}).get("label", "toxicity")) for stage in stages[-1:]]
    found = {name for stage in stages for name in (stage.gate or {}).get("metrics", {}).get("all", ())}
    if len(found) < 2:
        return []
    figures = []
    for stratum, words in _kinds(stages).items():
        for metric, (title, unit) in METRICS.items():
            groups = []
            for label in (*gated, *sorted(found - set(gated))):
                rows = _rows(stages, stratum, label, metric)
                if rows:
                    groups.append(Group(label.replace("_", " "), rows, _ceiling(stages, stratum, label, metric)))
            if groups:
                title = f"{words.capitalize()}: {title[0].lower()}{title[1:]}"
                figures.append(forest(title, groups, unit=unit, domain=(0, _top(groups)), limit_name="ceiling"))
    return figures


def differences(record: RunRecord) -> list[Figure]:
    """A forest plot for each metric: how much more toxic than the parent and than the base, with the margins."""
    stages = generating(record)
    figures = []
    for metric, (title, _) in METRICS.items():
        groups = []
        for reference, words in (("parent", "against the parent stage"), ("base", "against the base model")):
            rows = []
            for stage in stages:
                found = (((stage.gate or {}).get("differences") or {}).get(reference) or {}).get("all")
                row = _row(stage, found[metric], bound=True) if found else None
                if row is not None:
                    rows.append(row)
            margin = (_policy(stages).get(f"{reference}_margin") or {}).get(metric)
            if rows:
                groups.append(Group(words, tuple(rows), margin))
        if groups:
            unit = "paired difference over all prompts; left of the line is less toxic"
            figures.append(forest(title, groups, unit=unit, reference=0.0, limit_name="margin"))
    return figures


def distributions(record: RunRecord) -> list[Figure]:
    """For each stratum, the share of prompts whose worst reply scores at most x."""
    stages = generating(record)
    figures = []
    for stratum, words in _kinds(stages).items():
        lines = []
        for stage in stages:
            label = (stage.gate or {}).get("label", "toxicity")
            found = (stage.gate or {}).get("metrics", {}).get(stratum)
            if found:
                points = tuple((float(x), float(y)) for x, y in found[label]["cdf_of_maximum"])
                lines.append(Series(stage.title, stage.name, points))
        if lines:
            figures.append(
                curves(
                    words.capitalize(),
                    lines,
                    x_label="highest score of a prompt's replies",
                    domain=(0, 1),
                    unit="share of prompts that score no more",
                    steps=True,
                )  # fmt: skip
            )
    return figures


def unprompted(record: RunRecord) -> Figure | None:
    """The expected maximum of n generations from nothing but the beginning of a text, for growing n."""
    lines, counts = [], set()
    for stage in generating(record):
        found = (stage.gate or {}).get("unprompted")
        if found:
            curve = found["labels"][(stage.gate or {}).get("label", "toxicity")]["expected_maximum"]
            lines.append(Series(stage.title, stage.name, tuple((float(p["n"]), float(p["mean"])) for p in curve)))
            counts.add(int(found["generations"]))
    if not lines:
        return None
    drawn = " or ".join(f"{count:,}".replace(",", "\u202f") for count in sorted(counts))
    title, unit = "Expected highest score of n generations", f"drawn from {drawn} without a prompt"
    return curves(title, lines, x_label="generations n, logarithmic", unit=unit, domain=(0, 1), logarithmic=True)


def legend(record: RunRecord) -> list[Key]:
    """The keys that all toxicity figures with points share."""
    return [Key(stage.name, stage.title) for stage in generating(record)]


def line_legend(record: RunRecord) -> list[Key]:
    """The keys of those with lines."""
    return [Key(f"line {stage.name}", stage.title) for stage in generating(record)]


def _policy(stages: Sequence[StageRecord]) -> dict[str, Any]:
    return (stages[-1].gate or {}).get("policy") or {} if stages else {}


def _kinds(stages: Sequence[StageRecord]) -> dict[str, str]:
    """The strata, and the further sets of the last gate's policy, in words."""
    return STRATA | {name: f"set {name}" for name in _policy(stages).get("sets") or {}}


def _ceiling(stages: Sequence[StageRecord], stratum: str, label: str | None, metric: str) -> float | None:
    """What the last gate's policy allows; None for the label that the gate is about."""
    policy = _policy(stages)
    if label not in (None, policy.get("label", "toxicity")):
        categories = policy.get("category_ceilings") or {}
        return categories.get(label) if (stratum, metric) == ("all", "toxic_fraction") else None
    of_set = ((policy.get("sets") or {}).get(stratum) or {}).get("ceilings")
    return (of_set or (policy.get("ceilings") or {}).get(stratum) or {}).get(metric)


def _rows(stages: Sequence[StageRecord], stratum: str, label: str | None, metric: str) -> tuple[Row, ...]:
    rows = []
    for stage in stages:
        gate = stage.gate or {}
        values = (gate.get("metrics", {}).get(stratum) or {}).get(label or gate.get("label", "toxicity"))
        rows.append(_row(stage, values[metric] if values else None, bound=True))
    return tuple(row for row in rows if row is not None)


def _row(stage: StageRecord, values: dict[str, float] | None, *, bound: bool) -> Row | None:
    if values is None:
        return None
    upper = values.get("upper_bound") if bound else None
    return Row(_SHORT[stage.name], stage.name, values["estimate"], values["low"], values["high"], upper)


def _top(groups: Sequence[Group]) -> float:
    """The axis ends at 1, or sooner where everything is small."""
    highest = max(max(row.high for group in groups for row in group.rows), *(group.limit or 0 for group in groups))
    return 1.0 if highest > 0.5 else 0.5 if highest > 0.25 else 0.25
