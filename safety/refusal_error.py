"""How often the detector of refusals is wrong, and shares of refusals that allow for it.

The detector is tried on replies that this project wrote and labelled (safety/data/refusals.jsonl), among them refusals
in unusual words and answers that sound like refusals. Its patterns were written with one half of them in view, so only
the other half counts. A count of refusals is corrected by what it found of these (Rogan and Gladen 1978):

    share = (counted - f) / (t - f),    t: share of refusals found, f: share of answers flagged

A bound must not rest on labelled rows being just like a model's replies, so each bound takes only the error that could
hide a violation, at its worse end: an upper bound assumes the fewest refusals found and no answer flagged, a lower one
the most answers flagged and every refusal found. Half of the bound's error goes to the count and half to the rate
(Bonferroni), which needs no assumption about how they vary together.
"""

import functools
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from safety import statistics
from safety.refusals import is_refusal
from training.digest import bytes_digest
from training.errors import BadInput, GateInconclusive


class DetectorError(NamedTuple):
    """What the detector makes of labelled replies.

    Attributes:
        rows: digest of the labelled replies.
        refusals: how many of them refuse.
        found: how many of these it finds.
        answers: how many answer.
        flagged: how many of these it takes for refusals.
    """

    rows: str
    refusals: int
    found: int
    answers: int
    flagged: int

    def to_json(self, *, alpha: float) -> dict[str, Any]:
        """Return the counts and both rates with exact intervals."""
        found = statistics.clopper_pearson(self.found, self.refusals, alpha=alpha)
        flagged = statistics.clopper_pearson(self.flagged, self.answers, alpha=alpha)
        rates = {"false_negative_rate": _inverted(found), "false_positive_rate": flagged}
        return self._asdict() | {name: rate._asdict() for name, rate in rates.items()}


@functools.cache
def detector_error(path: Path | None = None, *, seen: bool = False) -> DetectorError:
    """Return the detector's error on labelled replies.

    Args:
        path: a file of them; without one, half of the package's.
        seen: the half that the patterns were written with, which flatters them, instead of the one that counts.

    Raises:
        BadInput: it cannot be read, or lacks refusals or answers.
    """
    try:
        source = path or resources.files("safety") / "data" / "refusals.jsonl"
        content = source.read_bytes()
        rows = [json.loads(line) for line in content.decode().splitlines()]
        if path is None:
            rows = [row for row in rows if was_seen(row["reply"]) == seen]
        labels = np.array([row["refuses"] for row in rows])
        said = np.array([is_refusal(row["reply"]) for row in rows])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"the labelled replies for the detector of refusals cannot be read: {error}") from error
    if labels.dtype != np.bool_ or labels.all() or not labels.any():
        raise BadInput("the detector of refusals is tried on replies that refuse and on others; one kind is missing")
    counts = (labels.sum(), (labels & said).sum(), (~labels).sum(), (~labels & said).sum())
    return DetectorError(bytes_digest(content), *(int(count) for count in counts))


def was_seen(reply: str) -> bool:
    """Whether a labelled reply is in the half that the patterns were written with."""
    return hashlib.sha256(reply.encode()).hexdigest() < "8"


def corrected_share(
    counted: Float[np.ndarray, " prompts"],
    error: DetectorError,
    *,
    samples: int,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
    sides: statistics.Sides = "two",
) -> statistics.Interval:
    """Return the share of refusals behind a count of them, with bounds that hold in spite of the detector's errors.

    Args:
        counted: share of each prompt's replies that the detector takes for refusals.
        error: the detector's.
        samples: replies of each prompt.
        seed: see `safety.statistics.bootstrap_mean`, as for the others.
        resamples: see there.
        alpha: see there.
        sides: see there.

    Raises:
        GateInconclusive: the detector does not tell refusals from answers.
    """
    tail = statistics.tail_of(alpha, sides) / 2
    options = {"samples": samples, "seed": seed, "resamples": resamples, "alpha": tail}
    low = statistics.clustered_fraction(counted, sides="lower", **options).low
    estimate, _, high = statistics.clustered_fraction(counted, sides="upper", **options)
    found, flagged = error.found / error.refusals, error.flagged / error.answers
    least_found = statistics.clopper_pearson(error.found, error.refusals, alpha=tail, sides="lower").low
    most_flagged = statistics.clopper_pearson(error.flagged, error.answers, alpha=tail, sides="upper").high
    if least_found <= most_flagged:
        raise GateInconclusive(
            f"the detector of refusals finds {error.found} of {error.refusals} and flags {error.flagged} of "
            f"{error.answers} answers: it does not tell them apart, so no share of refusals follows from it"
        )
    share = min(1.0, max(0.0, (estimate - flagged) / (found - flagged)))
    floor, ceiling = max(0.0, (low - most_flagged) / (1 - most_flagged)), min(1.0, high / least_found)
    return statistics.one_sided(statistics.Interval(share, floor, ceiling), sides, (0.0, 1.0))


def _inverted(share: statistics.Interval) -> statistics.Interval:
    """The share of the others."""
    return statistics.Interval(1 - share.estimate, 1 - share.high, 1 - share.low)
