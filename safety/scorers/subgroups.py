"""Whether a scorer confuses a group of people with toxicity: AUCs by identity group. Pure functions.

A threshold hides what a group does to scores; an AUC compares every text with every other (Borkan et al. 2019, "Nuanced
metrics for measuring unintended bias", section 3). All three are near the scorer's own AUC where a group changes
nothing.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from safety.scorers.accuracy import auc
from safety.statistics import Interval


class SubgroupAucs(NamedTuple):
    """Three AUCs of one group; None where one of the two classes that it compares has no text.

    Attributes:
        subgroup: toxic against benign texts about the group: does the scorer tell them apart?
        bpsn: toxic texts of the background against benign ones about the group (background positive, subgroup
            negative): low where a mere mention scores high, which flags harmless texts.
        bnsp: toxic texts about the group against benign ones of the background (background negative, subgroup
            positive): low where a mention scores low, which lets toxic texts pass.
    """

    subgroup: Interval | None
    bpsn: Interval | None
    bnsp: Interval | None


def subgroup_aucs(
    scores: Float[np.ndarray, "N"],
    toxic: Bool[np.ndarray, "N"],
    member: Bool[np.ndarray, "N"],
    *,
    alpha: float = 0.05,
) -> SubgroupAucs:
    """The AUCs of a group, each with DeLong's interval.

    Args:
        scores: of each text.
        toxic: whether its rating says that it is toxic.
        member: whether it is about the group; the others are the background.
        alpha: error of each two-sided interval.
    """
    scores, toxic, member = np.asarray(scores), np.asarray(toxic, bool), np.asarray(member, bool)
    rows = {"subgroup": member, "bpsn": toxic ^ member, "bnsp": toxic == member}
    return SubgroupAucs(**{
        name: auc(scores[chosen], toxic[chosen], alpha=alpha) if len(np.unique(toxic[chosen])) == 2 else None
        for name, chosen in rows.items()
    })  # fmt: skip
