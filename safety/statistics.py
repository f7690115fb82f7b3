"""Intervals for a gate. The unit is the prompt: its k samples are a cluster and are resampled together.

Treating samples as independent makes intervals too narrow (a nominal 95 % then covers about 80 %). A gate uses
*one-sided* bounds at alpha = .05: only "more toxic than allowed" counts against a checkpoint, so all of alpha is spent
on the upper end. The upper end of a two-sided interval at 2 * alpha is the same number. Because a gate passes only if
every clause holds (an intersection-union test), no correction for their number is owed.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import betaincinv, ndtr, stdtrit

Sides = Literal["two", "upper", "lower"]

_CHUNK = 4_000_000  # resampled values held at once: 32 MB


class Interval(NamedTuple):
    """A point estimate and its interval; a one-sided interval's other end is the end of the possible range."""

    estimate: float
    low: float
    high: float


def bootstrap_mean(
    values: Float[np.ndarray, " prompts"],
    *,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
    sides: Sides = "two",
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Cluster bootstrap of the mean over prompts of one value per prompt: expanded percentiles, corrected for skewness.

    Plain percentiles are too narrow for few prompts: resampling has a variance smaller by (P - 1) / P and knows no
    Student's t. So the tail is made smaller by both (Hesterberg 2015, The American Statistician 69:371): to
    Phi(sqrt(P / (P - 1)) t(tail, P - 1)), .042 instead of .05 with 30 prompts and .0498 with 1,000.

    And their upper end is too low where values are skewed, as shares of toxic replies are: 0 of most prompts, large of
    a few, which a sample may have missed. Both ends are moved as Efron's BCa does it (1987, JASA 82:171), for a mean
    by a = z0 = sum(d^3) / (6 sum(d^2)^1.5) with d the values less their mean: to Phi(z0 + (z0 + z) / (1 - a (z0 + z))).

    If every value is the same, resampling finds no spread and would claim certainty. What is then known is that a share
    s of prompts with another value has s <= 1 - alpha^(1/P) (Clopper-Pearson for zero hits), and each such value lies
    within `bounds`: the interval is widened by that.

    Args:
        values: one value per prompt, e.g. the maximum score of its samples (for EMT) or the share of toxic ones.
        seed: of the resampling; the same seed gives the same interval.
        resamples: number of bootstrap resamples.
        alpha: error of the whole interval; `sides="two"` spends half of it at each end.
        sides: "two", or "upper"/"lower" for a one-sided bound.
        bounds: the least and greatest value possible.

    Raises:
        ValueError: no values, a value that is not finite or out of bounds, or a bad alpha, sides or resamples.
    """
    values = np.asarray(values, np.float64)
    tail = tail_of(alpha, sides)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"wanted a non-empty vector of finite values, got shape {values.shape}")
    least, greatest = bounds
    if values.min() < least or values.max() > greatest:
        raise ValueError(f"values must lie in [{least}, {greatest}], got {values.min()} to {values.max()}")
    if resamples < 1:
        raise ValueError(f"wanted at least one resample, got {resamples}")
    mean = float(values.mean())
    if values.min() == values.max():
        unseen = 1 - tail ** (1 / len(values))
        low, high = mean - unseen * (mean - least), mean + unseen * (greatest - mean)
    else:
        means = _resampled_means(values, resamples, np.random.default_rng(seed))
        low, high = (float(end) for end in np.quantile(means, _percentiles(values, tail)))
    return one_sided(Interval(mean, low, high), sides, bounds)


def bootstrap(
    values: Float[np.ndarray, " pairs"],
    statistic: Callable[[Float[np.ndarray, "... pairs"]], Float[np.ndarray, "..."]],
    *,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
    sides: Sides = "two",
) -> Interval:
    """Bootstrap, percentile method, of a statistic in [0, 1] that is no mean, over values that are independent.

    For a statistic that chance makes larger, such as a calibration error, resampling adds chance to chance: the upper
    end lies too high rather than too low. The interval is never narrower than what no value among so many can exclude.

    Args:
        values: one of each unit.
        statistic: of the last axis.
        seed: see `bootstrap_mean`, as for the others.
        resamples: see there.
        alpha: see there.
        sides: see there.
    """
    tail = tail_of(alpha, sides)
    estimate, rng = float(statistic(values)), np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(values))
    found = np.concatenate(
        [
            statistic(values[rng.integers(len(values), size=(min(rows, resamples - start), len(values)))])
            for start in range(0, resamples, rows)
        ]
    )
    low, high = (float(end) for end in np.quantile(found, [tail, 1 - tail]))
    unseen = 1 - tail ** (1 / len(values))
    low, high = min(low, estimate * (1 - unseen)), max(high, estimate + unseen * (1 - estimate))
    return one_sided(Interval(estimate, low, high), sides, (0.0, 1.0))


def paired_bootstrap(
    child: Float[np.ndarray, " prompts"],
    parent: Float[np.ndarray, " prompts"],
    *,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
    sides: Sides = "two",
) -> Interval:
    """Paired cluster bootstrap of mean(child - parent): the same prompts in both, values in [0, 1]."""
    child, parent = np.asarray(child, np.float64), np.asarray(parent, np.float64)
    if child.shape != parent.shape:
        raise ValueError(f"a paired difference needs the same prompts: got {child.shape} and {parent.shape}")
    return bootstrap_mean(child - parent, seed=seed, resamples=resamples, alpha=alpha, sides=sides, bounds=(-1.0, 1.0))


def clopper_pearson(hits: float, trials: float, *, alpha: float = 0.05, sides: Sides = "two") -> Interval:
    """Exact (never too narrow) interval of a proportion, from quantiles of the beta distribution (1934).

    0 of n has upper bound 1 - tail^(1/n), not 0. Non-whole counts are allowed for effective sample sizes.
    """
    tail = tail_of(alpha, sides)
    if not trials > 0 or not 0 <= hits <= trials:
        raise ValueError(f"wanted 0 <= hits <= trials and trials > 0, got {hits} of {trials}")
    low = 0.0 if hits == 0 else float(betaincinv(hits, trials - hits + 1, tail))
    high = 1.0 if hits == trials else float(betaincinv(hits + 1, trials - hits, 1 - tail))
    return one_sided(Interval(hits / trials, low, high), sides, (0.0, 1.0))


def clustered_fraction(
    fractions: Float[np.ndarray, " prompts"],
    *,
    samples: int,
    seed: int,
    resamples: int = 2000,
    alpha: float = 0.05,
    sides: Sides = "two",
) -> Interval:
    """Interval of a share of clustered samples: the wider of the cluster bootstrap's and Korn & Graubard's ends.

    With hits in a handful of prompts the bootstrap is too narrow at the top. Korn & Graubard (1998) use Clopper-Pearson
    with the effective sample size n = p(1 - p) / var(p), var being the cluster variance; it lies between the number of
    prompts and the number of samples. With no hits at all, n is the number of prompts.

    Args:
        fractions: share of hits among each prompt's samples.
        samples: samples per prompt, k.
        seed: see `bootstrap_mean`, as for the others.
        resamples: see there.
        alpha: see there.
        sides: see there.
    """
    fractions = np.asarray(fractions, np.float64)
    bootstrap = bootstrap_mean(fractions, seed=seed, resamples=resamples, alpha=alpha, sides=sides)
    prompts, p = len(fractions), bootstrap.estimate
    variance = float(fractions.var(ddof=1)) / prompts if prompts > 1 else 0.0
    effective = float(prompts)
    if variance > 0:
        effective = min(max(p * (1 - p) / variance, 1.0), float(prompts * samples))
    exact = clopper_pearson(min(p * effective, effective), effective, alpha=alpha, sides=sides)
    return Interval(p, min(bootstrap.low, exact.low), max(bootstrap.high, exact.high))


def tail_of(alpha: float, sides: Sides) -> float:
    """Error at each end of an interval, or at the one end of a one-sided bound.

    Raises:
        ValueError: a bad alpha or sides.
    """
    if sides not in ("two", "upper", "lower"):
        raise ValueError(f'sides is "two", "upper" or "lower", got {sides!r}')
    if not 0 < alpha < 0.5:
        raise ValueError(f"wanted 0 < alpha < 0.5, got {alpha}")
    return alpha / 2 if sides == "two" else alpha


def in_words(interval: Mapping[str, float], sign: str = "") -> str:
    """An interval as a person reads it, from its JSON form: estimate [low, high].

    Args:
        interval: with estimate, low and high.
        sign: "+" shows the sign of positive numbers too.
    """
    estimate, low, high = (format(interval[name], f"{sign}.3f") for name in ("estimate", "low", "high"))
    return f"{estimate} [{low}, {high}]"


def one_sided(interval: Interval, sides: Sides, bounds: tuple[float, float]) -> Interval:
    """Put the end of the possible range where a one-sided interval claims nothing; a two-sided one stays as it is."""
    if sides == "upper":
        return interval._replace(low=bounds[0])
    return interval._replace(high=bounds[1]) if sides == "lower" else interval


def _percentiles(values: np.ndarray, tail: float) -> tuple[float, float]:
    """Which shares of the resampled means lie below the two ends of an interval; see `bootstrap_mean`."""
    prompts, apart = len(values), values - values.mean()
    expanded = math.sqrt(prompts / (prompts - 1)) * float(stdtrit(prompts - 1, tail))
    skew = float((apart**3).sum() / (6 * (apart**2).sum() ** 1.5))

    def moved(z: float) -> float:
        left = 1 - skew * (skew + z)
        if left <= 0:  # farther out than any percentile
            return float(z > 0)
        return float(ndtr(skew + (skew + z) / left))

    return moved(expanded), moved(-expanded)


def _resampled_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `resamples` draws with replacement, in chunks that bound the memory."""
    rows = max(1, _CHUNK // len(values))
    return np.concatenate(
        [
            values[rng.integers(len(values), size=(min(rows, resamples - start), len(values)))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
