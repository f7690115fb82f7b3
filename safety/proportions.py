"""Intervals of proportions that are not clustered, and of differences between two of them. Pure functions.

A gate decides on Clopper-Pearson and bootstrap bounds (`safety.statistics`), which never promise too much. Wilson's and
Newcombe's intervals are a little narrower and closer to their nominal coverage: they are for tables that describe.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom, norm

from safety.statistics import Interval, Sides, one_sided, tail_of


def wilson(hits: float, trials: float, *, alpha: float = 0.05, sides: Sides = "two") -> Interval:
    """Wilson's score interval (1927): all p for which a score test does not reject `hits` of `trials`.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4 n^2)) / (1 + z^2 / n), p = hits / trials, z the normal quantile.

    Raises:
        ValueError: no trials, more hits than trials, or a bad alpha or sides.
    """
    tail = tail_of(alpha, sides)
    if not trials > 0 or not 0 <= hits <= trials:
        raise ValueError(f"wanted 0 <= hits <= trials and trials > 0, got {hits} of {trials}")
    z, p = float(norm.isf(tail)), hits / trials
    centre, scale = p + z**2 / (2 * trials), 1 + z**2 / trials
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    # Rounding must not move an end past the estimate, where the two meet at 0 and 1.
    low, high = max(0.0, min(p, (centre - half) / scale)), min(1.0, max(p, (centre + half) / scale))
    return one_sided(Interval(p, low, high), sides, (0.0, 1.0))


def newcombe(
    hits: tuple[float, float], trials: tuple[float, float], *, alpha: float = 0.05, sides: Sides = "two"
) -> Interval:
    """Difference of two independent proportions, first - second (Newcombe 1998, Stat. Med. 17:873, method 10).

    Squares and adds the distances of Wilson's ends from the estimates.
    """
    first, second = (wilson(h, n, alpha=_outer(alpha, sides)) for h, n in zip(hits, trials, strict=True))
    return _square_and_add(first, second, 0.0, sides)


def newcombe_paired(
    both: int, only_first: int, only_second: int, neither: int, *, alpha: float = 0.05, sides: Sides = "two"
) -> Interval:
    """Difference of two paired proportions, first - second (Newcombe 1998, Stat. Med. 17:2635, method 10).

    As `newcombe`, less what the correlation phi of the pairs takes away; phi has a continuity correction.

    Args:
        both: pairs with a hit in both.
        only_first: pairs with a hit in the first alone.
        only_second: pairs with a hit in the second alone.
        neither: pairs without one.
        alpha: error of the whole interval.
        sides: "two", "upper" or "lower".
    """
    cells = (both, only_first, only_second, neither)
    n = sum(cells)
    if n < 1 or min(cells) < 0:
        raise ValueError(f"wanted counts of at least one pair, none negative, got {cells}")
    first = wilson(both + only_first, n, alpha=_outer(alpha, sides))
    second = wilson(both + only_second, n, alpha=_outer(alpha, sides))
    product = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    cross = both * neither - only_first * only_second
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    phi = corrected / math.sqrt(product) if product else 0.0
    return _square_and_add(first, second, phi, sides)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value that the two kinds of discordant pairs are equally likely (McNemar 1947)."""
    if min(only_first, only_second) < 0:
        raise ValueError(f"wanted counts that are not negative, got {only_first} and {only_second}")
    return min(1.0, 2 * float(binom.cdf(min(only_first, only_second), only_first + only_second, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): those at most alpha hold together with error alpha, whatever depends on what.

    The i-th smallest of m is multiplied by m - i + 1, made no smaller than the one before, and cut at 1.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"wanted p-values in [0, 1], got {list(p_values)}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return [float(value) for value in adjusted]


def _outer(alpha: float, sides: Sides) -> float:
    """A one-sided bound is an end of the two-sided interval at twice alpha; a difference needs both ends of that."""
    return 2 * tail_of(alpha, sides)


def _square_and_add(first: Interval, second: Interval, phi: float, sides: Sides) -> Interval:
    difference = first.estimate - second.estimate
    below = (first.estimate - first.low, second.high - second.estimate)
    above = (first.high - first.estimate, second.estimate - second.low)
    reach = [math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y)) for x, y in (below, above)]
    interval = Interval(difference, max(-1.0, difference - reach[0]), min(1.0, difference + reach[1]))
    return one_sided(interval, sides, (-1.0, 1.0))
