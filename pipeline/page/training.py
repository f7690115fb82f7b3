"""Training curves out of metrics.jsonl."""

from typing import NamedTuple

from pipeline.marks import Figure, Key, Table, number
from pipeline.page.record import StageRecord
from pipeline.plots import Series, curves

_MOST_POINTS = 240


class Plan(NamedTuple):
    """A figure to draw if its metric was logged: title, unit, the metric, and the held-out one beside it."""

    title: str
    unit: str
    metric: str
    held_out: str = ""
    reference: float | None = None
    domain: tuple[float, float] | None = None


# Few replies to prompts that no gate uses: how training goes, never what a gate says.
LIVE = Plan("live toxicity, not a gate’s", "expected maximum on a few prompts that no gate uses", "probe_emt")
PLANS = {
    "base": (Plan("loss", "nats a token", "loss", "eval_loss"),),
    "sft": (
        Plan("loss", "nats a learned token", "loss", "eval_loss"),
        Plan("token accuracy", "share of learned tokens", "token_accuracy", "eval_token_accuracy"),
        LIVE,
    ),
    "reward": (
        Plan("loss", "Bradley–Terry, nats a pair", "loss", "eval_loss"),
        Plan("accuracy", "share of pairs; the line is chance", "accuracy", "eval_accuracy", 0.5),
        Plan("margin", "reward of the better − of the worse reply", "margin"),
    ),
    "ppo": (
        Plan("score", "mean reward of the rollouts", "score"),
        Plan("KL to the SFT model", "nats a reply", "kl", "", 0.0),
        Plan("entropy", "nats a token", "entropy"),
        Plan("response length", "tokens", "response_length"),
        Plan("replies that end by themselves", "share", "eos_rate", domain=(0, 1)),
        Plan("explained variance of the critic", "1 is perfect", "value_explained_variance", "", 0.0),
        LIVE,
    ),
}


def figures(stage: StageRecord) -> list[Figure]:
    """The curves of a stage, of those of its metrics that were logged."""
    drawn = []
    for plan in PLANS[stage.name]:
        points = _points(stage, plan.metric)
        if not any(y is not None for _, y in points):
            continue
        series = [Series("training", stage.name, points)]
        keys: list[Key] = []
        if plan.held_out and any(row.get(plan.held_out) is not None for row in stage.metrics):
            held = tuple((x, y) for x, y in _raw(stage, plan.held_out) if y is not None)
            series.append(Series("held out", "held", held))
            mark = "line held" if len(held) > 1 else "held"  # a single point is drawn as a dot
            keys = [Key(f"line {stage.name}", "training"), Key(mark, "held out")]
        drawn.append(
            curves(
                f"{stage.title}: {plan.title}",
                series,
                x_label="step",
                unit=plan.unit,
                reference=plan.reference,
                domain=plan.domain,
                smooth=True,
                legend=keys,
            )
        )
    return drawn


def first_minibatch(stage: StageRecord) -> str:
    """What PPO's very first minibatch shows: nothing may have moved yet."""
    first = next((row for row in stage.metrics if row.get("first_ratio_mean") is not None), None)
    if first is None:
        return ""
    ratio, clipped = first["first_ratio_mean"], first.get("first_clip_fraction")
    found = (
        f"In PPO's first minibatch the ratio of new to old probabilities is {ratio:.6f} and the clip fraction "
        f"{number(clipped)}"
    )
    if abs(ratio - 1) <= 1e-5 and clipped == 0:
        return f"{found}, as must be before anything has moved."
    return f"{found}; nothing has moved yet, so they should be within 0.00001 of 1 and exactly 0."


def overview(stage: StageRecord) -> Table | None:
    """Every logged metric of a stage: where it started, where it ended, and between which ends it moved."""
    rows = []
    for name in sorted({name for row in stage.metrics for name in row} - {"step"}):
        values = [y for _, y in _raw(stage, name) if y is not None]
        if values:
            rows.append((name, *(number(value) for value in (values[0], values[-1], min(values), max(values)))))
    return Table(("metric", "first", "last", "lowest", "highest"), tuple(rows)) if rows else None


def _raw(stage: StageRecord, metric: str) -> list[tuple[float, float | None]]:
    rows = [(row["step"], row.get(metric)) for row in stage.metrics]
    return [(float(x), float(y) if isinstance(y, int | float) else None) for x, y in rows]


def _points(stage: StageRecord, metric: str) -> tuple[tuple[float, float | None], ...]:
    """The metric by step; of a long run, means of equally many neighbouring steps."""
    points = [(x, y) for x, y in _raw(stage, metric) if y is not None]
    size = -(-len(points) // _MOST_POINTS) or 1
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((block[-1][0], sum(y for _, y in block) / len(block)) for block in blocks)
