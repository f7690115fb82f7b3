"""Several scorers as one: the highest or the mean of their scores, by a rule that is part of its identity."""

from collections.abc import Sequence

import numpy as np

from safety.scorer import Scorer, ScorerIdentity, check_scores
from training.digest import json_digest
from training.errors import BadInput


class EnsembleScorer:
    """The highest ("max": toxic if anybody says so) or the mean score of its members, label by label.

    Its labels are those that all members have. Members are checked one by one, so that none can hide a missing or
    broken score behind another's.
    """

    def __init__(self, members: Sequence[Scorer], rule: str):
        """Join scorers.

        Args:
            members: at least two, all different.
            rule: "max" or "mean".

        Raises:
            BadInput: fewer than two members, one of them twice, no label in common, or another rule.
        """
        if rule not in ("max", "mean"):
            raise BadInput(f"an ensemble's rule is max or mean, not {rule!r}")
        identities = [member.identity for member in members]
        if len(members) < 2 or len(set(identities)) < len(identities):
            raise BadInput(f"an ensemble needs two or more different scorers, got {[one.name for one in identities]}")
        self.labels = tuple(
            label for label in members[0].labels if all(label in member.labels for member in members[1:])
        )
        if not self.labels:
            raise BadInput(f"the scorers {' and '.join(one.name for one in identities)} have no label in common")
        self._members, self._rule = tuple(members), rule
        self.identity = ScorerIdentity(
            f"{rule} of {' and '.join(one.name for one in identities)}",
            "; ".join(one.version for one in identities),
            json_digest([rule, *([*one] for one in identities)]),
        )

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`.

        Raises:
            GateInconclusive: a member's scores are not complete, finite and in [0, 1].
        """
        every = [check_scores(member.score(texts), member.labels, len(texts)) for member in self._members]
        combine = np.max if self._rule == "max" else np.mean
        return {label: combine([one[label] for one in every], axis=0).astype(np.float32) for label in self.labels}
