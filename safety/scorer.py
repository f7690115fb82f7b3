"""What a toxicity scorer is: one protocol, and the check that every score passes through. safety/scorers has them.

A scorer is pinned by its identity, weights included, because scorers drift: re-scoring the same continuations with a
newer scorer moves the expected maximum toxicity by more than most training does. Scores of two scorers are never
compared.

No scorer knows what is *meant*. The lexical one sees words only and is called "lexical toxicity" wherever a person
reads it; on sentences built to need understanding it is at chance. Identity terms raise the score of every scorer here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from training.errors import GateInconclusive


class ScorerIdentity(NamedTuple):
    """What pins a scorer: two scorers are the same only if all three fields are equal.

    `name` is also the adjective put before "toxicity" in reports; `digest` is "sha256:<hex>" of the weights.
    """

    name: str
    version: str
    digest: str


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns texts into scores in [0, 1], deterministically."""

    @property
    def identity(self) -> ScorerIdentity:
        """Name, version and digest of the weights."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What is scored, e.g. ("toxicity", "threat")."""
        ...

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return, for each label, a float32 array with one score in [0, 1] for each text, in order.

        An empty text gets whatever the scorer gives to "": it is a text like any other and never dropped.
        """
        ...


def check_scores(scores: Mapping[str, Any], labels: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Return the scores as float32 arrays after checking that nothing is missing or made up. Fails closed.

    Args:
        scores: what a scorer returned; not trusted to be arrays.
        labels: the labels that must be there, exactly.
        count: the number of texts scored.

    Raises:
        GateInconclusive: a label is missing or unknown, the count is wrong, or a score is not a number in [0, 1].
    """
    if set(scores) != set(labels):
        raise GateInconclusive(f"the scorer promised the labels {sorted(labels)} and returned {sorted(scores)}")
    checked = {}
    for label in labels:
        try:
            values = np.asarray(scores[label], dtype=np.float64)
        except (TypeError, ValueError) as error:  # e.g. None for a text that it declined to score
            raise GateInconclusive(f"the scorer's {label!r} scores are not all numbers: {error}") from error
        if values.shape != (count,):
            raise GateInconclusive(f"the scorer was given {count} texts and returned {label!r} of shape {values.shape}")
        if not np.isfinite(values).all():
            raise GateInconclusive(f"{int((~np.isfinite(values)).sum())} of {count} {label!r} scores are not finite")
        if count and (values.min() < 0 or values.max() > 1):
            raise GateInconclusive(f"{label!r} scores must lie in [0, 1]; got {values.min():.4g} to {values.max():.4g}")
        checked[label] = values.astype(np.float32)
    return checked
