"""How well scores agree with ratings: discrimination, rates at a threshold, calibration. Pure functions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from safety.statistics import Interval, clopper_pearson


def auc(scores: Float[np.ndarray, "N"], toxic: Bool[np.ndarray, "N"], *, alpha: float = 0.05) -> Interval:
    """P(a toxic text scores above a benign one), ties counted half, with DeLong's interval (DeLong et al. 1988).

    With V_i the share of benign texts below the toxic text i and W_j the share of toxic texts above the benign text j,
    auc = mean(V) = mean(W) and its variance is var(V) / toxic + var(W) / benign. The interval is taken on the logit, so
    that it stays in [0, 1]. Perfect or inverse separation has no variance; then the interval is that of a share of the
    smaller class in which nothing was seen.

    Args:
        scores: of each text.
        toxic: whether the rating says that it is toxic.
        alpha: error of the two-sided interval.

    Raises:
        ValueError: one of the two classes is empty.
    """
    toxic = np.asarray(toxic, bool)
    positives, negatives = int(toxic.sum()), int((~toxic).sum())
    if not positives or not negatives:
        raise ValueError(f"an AUC needs texts of both kinds, got {positives} toxic and {negatives} benign ones")
    scores = np.asarray(scores, np.float64)
    ranks = rankdata(scores)
    above = (ranks[toxic] - rankdata(scores[toxic])) / negatives
    below = 1 - (ranks[~toxic] - rankdata(scores[~toxic])) / positives
    estimate = float(above.mean())
    variance = sum(float(part.var(ddof=1)) / len(part) if len(part) > 1 else 0.25 for part in (above, below))
    if variance == 0 or estimate in (0.0, 1.0):
        share = clopper_pearson(0, min(positives, negatives), alpha=alpha).high
        return Interval(estimate, max(0.0, estimate - share), min(1.0, estimate + share))
    spread = -float(ndtri(alpha / 2)) * np.sqrt(variance) / (estimate * (1 - estimate))
    centre = np.log(estimate / (1 - estimate))
    return Interval(estimate, float(expit(centre - spread)), float(expit(centre + spread)))


class Rates(NamedTuple):
    """What a threshold does: shares of toxic and of benign texts that score at least as high, exact intervals."""

    true_positive: Interval
    false_positive: Interval


def rates(
    scores: Float[np.ndarray, "N"], toxic: Bool[np.ndarray, "N"], *, threshold: float, alpha: float = 0.05
) -> Rates:
    """True and false positive rates at a threshold, with Clopper-Pearson intervals.

    Raises:
        ValueError: one of the two classes is empty.
    """
    flagged, toxic = np.asarray(scores) >= threshold, np.asarray(toxic, bool)
    shares = [
        clopper_pearson(int(flagged[rows].sum()), int(rows.sum()), alpha=alpha) for rows in (toxic, ~toxic)
    ]  # fmt: skip
    return Rates(*shares)


class Reliability(NamedTuple):
    """Mean scores against mean ratings, in intervals of equal width over [0, 1].

    Attributes:
        error: mean |score - rating| of the intervals' means, weighted by their counts (expected calibration error).
        predicted: mean score in the interval; NaN if empty.
        observed: mean rating there; NaN if empty.
        count: texts there.
    """

    error: float
    predicted: Float[np.ndarray, "bins"]
    observed: Float[np.ndarray, "bins"]
    count: Int[np.ndarray, "bins"]


def reliability(
    scores: Float[np.ndarray, "N"], ratings: Float[np.ndarray, "N"], *, bins: int = 10
) -> Reliability:
    """Compares scores with the ratings that they should equal on average (Guo et al. 2017, equation 3).

    Args:
        scores: in [0, 1].
        ratings: in [0, 1]; a text's own rating, not whether it passes a threshold.
        bins: intervals [i / bins, (i + 1) / bins), the last one closed.

    Raises:
        ValueError: no texts.
    """
    scores, ratings = np.asarray(scores, np.float64), np.asarray(ratings, np.float64)
    if not len(scores):
        raise ValueError("calibration cannot be measured on no texts")
    place = np.minimum((scores * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    predicted = np.bincount(place, weights=scores, minlength=bins) / filled
    observed = np.bincount(place, weights=ratings, minlength=bins) / filled
    error = np.nansum(np.abs(predicted - observed) * count) / len(scores)
    return Reliability(float(error), predicted, observed, count)
