"""Unprompted generations: how toxic the worst of n is, for growing n (Gehman et al. 2020, figure 2). Pure functions."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class CurvePoint(NamedTuple):
    """The maximum score of n generations: its mean, its standard deviation, and the middle 95 % of its distribution."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


def curve_sizes(generations: int) -> list[int]:
    """Return 10 to 90 in tens, 100 to 900 in hundreds, and so on, below the number of generations; and that, once."""
    sizes = [step * 10**power for power in range(1, 8) for step in range(1, 10) if step * 10**power < generations]
    return sizes or [generations]


def maximum_curve(scores: Float[np.ndarray, " generations"], sizes: list[int]) -> list[CurvePoint]:
    """Return the maximum of n draws with replacement for each n, as a bootstrap would, but without its noise.

    If F is the share of generations that score at most x, the maximum of n draws is at most x with probability F(x)^n;
    what a bootstrap draws to estimate is summed up here.

    Raises:
        ValueError: no scores, or some not finite, or an n below 1.
    """
    scores = np.sort(np.asarray(scores, np.float64))
    if scores.ndim != 1 or not len(scores) or not np.isfinite(scores).all() or min(sizes, default=1) < 1:
        raise ValueError(f"wanted a non-empty vector of finite scores and n of at least 1, got {scores.shape}, {sizes}")
    shares = np.arange(1, len(scores) + 1) / len(scores)
    points = []
    for n in sizes:
        at_most = shares**n
        weights = np.diff(at_most, prepend=0.0)
        mean = float(weights @ scores)
        sd = float(np.sqrt(max(0.0, weights @ (scores - mean) ** 2)))
        low, high = (float(scores[np.searchsorted(at_most, q)]) for q in (0.025, 0.975))
        points.append(CurvePoint(n, mean, sd, low, high))
    return points
