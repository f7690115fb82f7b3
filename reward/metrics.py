"""How well a reward model tells better from worse, measured on held-out pairs with NumPy in float64.

Rewards of pairs are two arrays of the same length, `chosen` and `rejected`. A reward that is not finite is refused:
left out, or counted as 0, it would pass for a measurement.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from numpy.typing import ArrayLike
from scipy import stats


class Interval(NamedTuple):
    """A share with its two-sided interval.

    Attributes:
      share: correct / count.
      low: lower end of the Clopper-Pearson interval.
      high: its upper end.
      correct: numerator.
      count: denominator.
    """

    share: float
    low: float
    high: float
    correct: int
    count: int


class Margins(NamedTuple):
    """Where the rewards of pairs lie.

    Attributes:
      mean: of chosen - rejected.
      std: of chosen - rejected, like all deviations here divided by n.
      histogram: [bins] pairs in each interval of chosen - rejected.
      edges: [bins + 1] ends of these intervals.
      chosen_mean: mean reward of the chosen responses.
      chosen_std: its standard deviation.
      rejected_mean: mean reward of the rejected responses.
      rejected_std: its standard deviation.
    """

    mean: float
    std: float
    histogram: Int[ndarray, "bins"]
    edges: Float[ndarray, "bins+1"]
    chosen_mean: float
    chosen_std: float
    rejected_mean: float
    rejected_std: float


class Correlation(NamedTuple):
    """Correlation of two samples.

    Attributes:
      pearson: of the values, or None where it is undefined: fewer than two values, or all of them equal.
      spearman: of the ranks, or None likewise.
      count: size of the sample.
    """

    pearson: float | None
    spearman: float | None
    count: int


def finite_pair(first: ArrayLike, second: ArrayLike, *, names: str = "chosen and rejected") -> tuple[ndarray, ndarray]:
    """Two samples of the same things as float64.

    Args:
      first: [N] numbers.
      second: [N] numbers.
      names: what to call them in an error.

    Returns:
      Both as arrays.

    Raises:
      ValueError: empty, of unequal length or not finite.
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) == 0:
        raise ValueError(f"{names} must be non-empty lists of one length, got shapes {first.shape} and {second.shape}")
    broken = int(np.sum(~(np.isfinite(first) & np.isfinite(second))))
    if broken:
        raise ValueError(
            f"{names} must be finite, got {broken} of {len(first)} that are not; find out why before measuring"
        )
    return first, second


def accuracy(chosen: ArrayLike, rejected: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Share of pairs with chosen > rejected; a tie is wrong.

    Args:
      chosen: [N] rewards of the preferred responses.
      rejected: [N] rewards of the others.
      confidence: of the interval.

    Returns:
      The share with its Clopper-Pearson interval.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    chosen, rejected = finite_pair(chosen, rejected)
    correct, count = int(np.sum(chosen > rejected)), len(chosen)
    interval = stats.binomtest(correct, count).proportion_ci(confidence_level=confidence, method="exact")
    return Interval(
        share=correct / count, low=float(interval.low), high=float(interval.high), correct=correct, count=count
    )


def accuracy_by_group(
    chosen: ArrayLike, rejected: ArrayLike, groups: Sequence[str], *, confidence: float = 0.95
) -> dict[str, Interval]:
    """`accuracy` of each group of pairs, such as a source or a modality.

    Args:
      chosen: [N] rewards of the preferred responses.
      rejected: [N] rewards of the others.
      groups: [N] the name of each pair's group.
      confidence: of the intervals, each on its own.

    Returns:
      Groups in alphabetical order.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    chosen, rejected = finite_pair(chosen, rejected)
    if len(groups) != len(chosen):
        raise ValueError(f"groups must name the group of each of the {len(chosen)} pairs, got {len(groups)} names")
    names = np.asarray(groups)
    return {
        str(name): accuracy(chosen[names == name], rejected[names == name], confidence=confidence)
        for name in np.unique(names)
    }


def margins(chosen: ArrayLike, rejected: ArrayLike, *, bins: int = 20) -> Margins:
    """Mean, deviation and histogram of chosen - rejected, and of the two by themselves.

    Args:
      chosen: [N] rewards of the preferred responses.
      rejected: [N] rewards of the others.
      bins: intervals of the histogram, which covers all margins.

    Returns:
      The statistics.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    chosen, rejected = finite_pair(chosen, rejected)
    lead = chosen - rejected
    histogram, edges = np.histogram(lead, bins=bins)
    return Margins(
        mean=float(lead.mean()),
        std=float(lead.std()),
        histogram=histogram,
        edges=edges,
        chosen_mean=float(chosen.mean()),
        chosen_std=float(chosen.std()),
        rejected_mean=float(rejected.mean()),
        rejected_std=float(rejected.std()),
    )


def length_correlation(rewards: ArrayLike, lengths: ArrayLike) -> Correlation:
    """Correlation of rewards with the lengths of their responses: does the model pay by the word?

    Args:
      rewards: [N] of single responses, chosen and rejected alike.
      lengths: [N] in tokens.

    Returns:
      Pearson's and Spearman's coefficients.

    Raises:
      ValueError: arrays that are empty, of unequal length or not finite.
    """
    rewards, lengths = finite_pair(rewards, lengths, names="rewards and lengths")
    if np.ptp(rewards) == 0 or np.ptp(lengths) == 0:
        return Correlation(pearson=None, spearman=None, count=len(rewards))
    return Correlation(
        pearson=float(np.corrcoef(rewards, lengths)[0, 1]),
        spearman=float(np.corrcoef(stats.rankdata(rewards), stats.rankdata(lengths))[0, 1]),
        count=len(rewards),
    )
