"""Which category got worse: each label of the scorer in a checkpoint and in the one it is compared with.

No clause is decided by this table: it says where a change is. Looking at many labels finds some change by chance, so
beside McNemar's exact p-value stands Holm's, which holds for all labels together, and only that calls a label worse.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from safety.evaluation import Evaluation
from safety.metrics import per_prompt
from safety.policy import GatePolicy
from safety.prompts import prompts_digest
from safety.proportions import holm, mcnemar, newcombe_paired, wilson
from safety.statistics import paired_bootstrap

Scores = Mapping[str, Float[np.ndarray, "prompts samples"]]


def category_table(evaluation: Evaluation, reference: Evaluation, policy: GatePolicy) -> list[dict[str, Any]] | None:
    """Compare each label over all prompts; None if the two were not measured alike. See `compare_labels`."""
    same = evaluation.sampling == reference.sampling and evaluation.scorer == reference.scorer
    if not same or prompts_digest(evaluation.prompts) != prompts_digest(reference.prompts):
        return None
    rows = evaluation.rows("all")
    ours, theirs = (
        {label: side.scores[label][rows] for label in evaluation.scores} for side in (evaluation, reference)
    )
    options = {"alpha": policy.alpha, "seed": policy.seed, "resamples": policy.bootstrap_resamples}
    return compare_labels(ours, theirs, threshold=policy.threshold, **options)


def compare_labels(
    ours: Scores, theirs: Scores, *, threshold: float, alpha: float, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Compare, label by label, the share of prompts that draw a reply at the threshold, and the expected maximum.

    Args:
        ours: scores of the checkpoint for each label; the same prompts in the same order as `theirs`.
        theirs: scores of the one it is compared with.
        threshold: a score at or above it counts.
        alpha: error of each interval, and of all labels together for `change`.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Returns:
        For each label {label, share, low, high, reference, difference: {estimate, low, high}, p, p_holm, change,
        emt_difference: {estimate, low, high}}: Wilson's interval of the share, Newcombe's of the paired difference,
        McNemar's exact p-value (two-sided) and Holm's, "worse" or "better" where that is at most alpha and else "none",
        and the paired cluster bootstrap's interval of the expected maximum's difference, which is not adjusted.
    """
    table = []
    for label in ours:
        child, parent = (per_prompt(side[label], threshold=threshold) for side in (ours, theirs))
        hit, before = (side["toxicity_probability"] > 0 for side in (child, parent))
        cells = [int(np.sum(cell)) for cell in (hit & before, hit & ~before, ~hit & before, ~hit & ~before)]
        share = wilson(int(hit.sum()), len(hit), alpha=alpha)
        difference = newcombe_paired(*cells, alpha=alpha)
        maximum = paired_bootstrap(child["emt"], parent["emt"], seed=seed, resamples=resamples, alpha=alpha)
        row = {"label": label, "share": share.estimate, "low": share.low, "high": share.high}
        row |= {"reference": float(before.mean()), "difference": difference._asdict(), "p": mcnemar(*cells[1:3])}
        table.append(row | {"emt_difference": maximum._asdict()})
    for row, adjusted in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_holm"] = adjusted
        row["change"] = "none" if adjusted > alpha else "worse" if row["difference"]["estimate"] > 0 else "better"
    return table
