"""How far the rewards of a pair can be read as a probability that one is preferred, with NumPy in float64."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy import special

from reward.metrics import finite_pair


class OrientedPairs(NamedTuple):
    """Pairs as (A, B), the preferred response in either place.

    Attributes:
      delta: [N] reward of A less reward of B.
      label: [N] 1 where A is the preferred one, else 0.
    """

    delta: Float[ndarray, "N"]
    label: Int[ndarray, "N"]


class Reliability(NamedTuple):
    """Predicted against observed frequencies, in intervals of equal width over [0, 1].

    Attributes:
      error: expected calibration error: mean |predicted - observed|, intervals weighted by their counts.
      max_error: the largest |predicted - observed| of an interval.
      predicted: [bins] mean prediction in the interval; NaN if empty.
      observed: [bins] frequency of the outcome there; NaN if empty.
      count: [bins] predictions there.
    """

    error: float
    max_error: float
    predicted: Float[ndarray, "bins"]
    observed: Float[ndarray, "bins"]
    count: Int[ndarray, "bins"]


class Calibration(NamedTuple):
    """How far sigmoid(delta) can be read as a probability.

    The two calibration errors answer different questions and differ in size; a report has to say which it shows.

    Attributes:
      nll: mean negative log-likelihood of the labels, in nats.
      brier: mean squared error of P(A) against the label.
      probability: reliability of P(A preferred) against the label.
      confidence: reliability of max(P, 1 - P) against whether the model's preference is right; no preference is wrong.
    """

    nll: float
    brier: float
    probability: Reliability
    confidence: Reliability


def randomise_orientation(chosen: ArrayLike, rejected: ArrayLike, *, seed: int) -> OrientedPairs:
    """Puts the preferred response of each pair first or second by the toss of a coin.

    With the preferred one always first every label is 1, and a model that is certain of everything looks calibrated.

    Args:
      chosen: [N] rewards of the preferred responses.
      rejected: [N] rewards of the others.
      seed: of the coin.

    Returns:
      Differences and labels.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    chosen, rejected = finite_pair(chosen, rejected)
    label = np.random.default_rng(seed).integers(0, 2, size=len(chosen))
    return OrientedPairs(delta=np.where(label == 1, chosen - rejected, rejected - chosen), label=label)


def reliability(prediction: ArrayLike, outcome: ArrayLike, *, bins: int = 10) -> Reliability:
    """Compares predicted probabilities with the frequency of what they predict.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), equations 3 and 5.

    Args:
      prediction: [N] probabilities.
      outcome: [N] 1 where it happened, else 0.
      bins: intervals [i / bins, (i + 1) / bins), the last one closed.

    Returns:
      Both errors and the table behind them.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite, or predictions outside [0, 1].
    """
    prediction, outcome = finite_pair(prediction, outcome, names="prediction and outcome")
    if prediction.min() < 0 or prediction.max() > 1:
        raise ValueError(f"prediction must lie in [0, 1], got [{prediction.min()}, {prediction.max()}]")
    index = np.clip(np.digitize(prediction, np.linspace(0, 1, bins + 1)) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.where(count > 0, count, np.nan)
    predicted = np.bincount(index, weights=prediction, minlength=bins) / filled
    observed = np.bincount(index, weights=outcome, minlength=bins) / filled
    gaps = np.abs(predicted - observed)
    return Reliability(
        error=float(np.nansum(gaps * count) / len(prediction)),
        max_error=float(np.nanmax(gaps)),
        predicted=predicted,
        observed=observed,
        count=count,
    )


def calibration(delta: ArrayLike, label: ArrayLike, *, bins: int = 10) -> Calibration:
    """NLL, Brier score and both calibration errors of P(A preferred) = sigmoid(delta).

    Args:
      delta: [N] reward of A less reward of B, of `randomise_orientation`.
      label: [N] 1 where A is the preferred one, else 0.
      bins: intervals of the calibration errors.

    Returns:
      The measures.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    delta, label = finite_pair(delta, label, names="delta and label")
    probability = special.expit(delta)
    # log_expit: log(expit(delta)) would be -inf for a confident mistake.
    nll = -label * special.log_expit(delta) - (1 - label) * special.log_expit(-delta)
    right = np.where(label == 1, delta > 0, delta < 0)
    return Calibration(
        nll=float(nll.mean()),
        brier=float(np.mean((probability - label) ** 2)),
        probability=reliability(probability, label, bins=bins),
        confidence=reliability(np.maximum(probability, 1 - probability), right, bins=bins),
    )
