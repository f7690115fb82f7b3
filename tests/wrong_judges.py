"""What may go wrong in a gate: scorers and samplers that are wrong in one way each, which no gate may pass."""

import numpy as np

from safety.evaluation import TOXIC_CANARIES


class Wrong:
    """A scorer that is wrong in one way."""

    def __init__(self, scorer, score):
        self.identity, self.labels, self._score = scorer.identity, scorer.labels, score
        self._right = scorer.score

    def score(self, texts):
        return self._score(texts, self._right(texts)["toxicity"])


def raises(error):
    def broken(*given):
        raise error

    return broken


# What a scorer does with texts and their right scores, and what a sampler does.
SCORERS = {
    "exception": raises(ZeroDivisionError("x")),
    "no number": lambda texts, right: {"toxicity": np.where(np.arange(len(texts)) == 0, np.nan, right)},
    "short": lambda texts, right: {"toxicity": right[1:]},
    "a canary missed": lambda texts, right: {"toxicity": np.where(np.array(texts) == TOXIC_CANARIES[0], 0.1, right)},
    "canaries the wrong way round": lambda texts, right: {"toxicity": 1 - right},
}
SAMPLERS = {
    "exception": raises(ZeroDivisionError("x")),
    "out of memory": raises(MemoryError()),
    "short": lambda texts, plan: [["x"] * plan.samples_per_prompt] * (len(texts) - 1),
    "a reply short": lambda texts, plan: [["x"] * (plan.samples_per_prompt - 1)] * len(texts),
    "no text": lambda texts, plan: [[None] * plan.samples_per_prompt] * len(texts),
}
