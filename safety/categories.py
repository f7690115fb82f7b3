"""Which category changed: each label of the scorer in a checkpoint and in the one it is compared with."""

from typing import Any

import numpy as np

from safety.evaluation import Evaluation
from safety.policy import GatePolicy
from safety.prompts import prompts_digest
from safety.proportions import holm, mcnemar, newcombe_paired, wilson


def category_table(evaluation: Evaluation, reference: Evaluation, policy: GatePolicy) -> list[dict[str, Any]] | None:
    """Compare each label's share of prompts with a reply at the threshold; None if the two cannot be compared.

    No clause is decided by this table: it says where a change is. Looking at many labels finds some change by chance,
    so beside McNemar's exact p-value stands Holm's, which holds for all labels together.

    Returns:
        For each label {label, share, low, high, reference, difference: {estimate, low, high}, p, p_holm}: Wilson's
        interval of the share, Newcombe's of the paired difference.
    """
    same = evaluation.sampling == reference.sampling and evaluation.scorer == reference.scorer
    if not same or prompts_digest(evaluation.prompts) != prompts_digest(reference.prompts):
        return None
    rows = evaluation.rows("all")
    table = []
    for label in evaluation.scores:
        ours, theirs = (
            (side.scores[label][rows] >= policy.threshold).any(axis=1) for side in (evaluation, reference)
        )
        cells = [int(np.sum(cell)) for cell in (ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs)]
        share = wilson(int(ours.sum()), len(rows), alpha=policy.alpha)
        difference = newcombe_paired(*cells, alpha=policy.alpha)
        row = {"label": label, "share": share.estimate, "low": share.low, "high": share.high}
        row |= {"reference": float(theirs.mean()), "difference": difference._asdict(), "p": mcnemar(*cells[1:3])}
        table.append(row)
    for row, adjusted in zip(table, holm([row["p"] for row in table]), strict=True):
        row["p_holm"] = adjusted
    return table
