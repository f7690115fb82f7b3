"""How many prompts a limit takes, and what limit a number of prompts can decide. Pure functions.

For a margin on a mean over prompts the normal approximation is used: the upper bound of a difference whose true value
is `effect` keeps the margin with probability `power` if

    n >= ((z(1 - alpha) + z(power)) * sd / (margin - effect))^2

sd being the standard deviation over prompts of one prompt's difference. For a ceiling on a share of prompts the
probability that the Clopper-Pearson bound keeps it is summed up exactly.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betainc
from scipy.stats import binom, norm

MOST = 10**7  # prompts; what takes more is not decided with prompts


class Need(NamedTuple):
    """What a limit takes.

    Attributes:
        name: of the limit, e.g. "parent/emt".
        limit: the margin or ceiling.
        prompts: how many prompts it takes.
    """

    name: str
    limit: float
    prompts: int


def prompts_for_margin(margin: float, *, sd: float, power: float, alpha: float, effect: float = 0.0) -> int:
    """Prompts for which the bound of a difference of true size `effect` keeps the margin with probability `power`.

    Args:
        margin: greatest difference allowed.
        sd: standard deviation over prompts of the (paired) difference.
        power: wanted probability of a pass.
        alpha: error of the one-sided bound.
        effect: the true difference; 0 for a checkpoint that is no worse, negative for a better one.

    Raises:
        ValueError: the effect is not below the margin, or a value is out of range.
    """
    if not effect < margin:
        raise ValueError(f"no number of prompts passes a difference of {effect:g} under a margin of {margin:g}")
    needed = (_reach(power, alpha, sd) / (margin - effect)) ** 2
    return min(MOST, max(1, math.ceil(needed - 1e-9)))


def margin_resolved(prompts: int, *, sd: float, power: float, alpha: float) -> float:
    """The smallest margin that so many prompts decide with probability `power` for a checkpoint that is no worse."""
    if prompts < 1:
        raise ValueError(f"wanted at least one prompt, got {prompts}")
    return _reach(power, alpha, sd) / math.sqrt(prompts)


def power_at_margin(prompts: int, margin: float, *, sd: float, alpha: float, effect: float = 0.0) -> float:
    """Probability that the bound of a difference of true size `effect` keeps the margin; alpha if they are equal."""
    if prompts < 1 or not sd > 0:
        raise ValueError(f"wanted at least one prompt and a deviation above 0, got {prompts} and {sd}")
    return float(norm.cdf((margin - effect) * math.sqrt(prompts) / sd - norm.isf(alpha)))


def prompts_for_ceiling(ceiling: float, *, rate: float, power: float, alpha: float) -> int:
    """Prompts from which on the Clopper-Pearson bound of a share of true size `rate` keeps the ceiling with `power`.

    The probability goes up and down a little as n grows; n is the first from which it stays at `power` or above.

    Raises:
        ValueError: the rate is not below the ceiling, or a value is out of range.
    """
    _reach(power, alpha, 1.0)
    if not 0 <= rate < ceiling < 1:
        raise ValueError(f"wanted 0 <= rate < ceiling < 1, got a rate of {rate:g} and a ceiling of {ceiling:g}")
    fewest = prompts_without_hits(ceiling, alpha=alpha)
    # By the normal approximation, with room for its error and for the saw teeth.
    spread = norm.isf(alpha) * math.sqrt(ceiling) + norm.ppf(power) * math.sqrt(rate)
    most = min(MOST, 2 * fewest + 100 + math.ceil(1.6 * (spread / (ceiling - rate)) ** 2))
    n = np.arange(fewest, most + 1)
    enough = binom.cdf(_most_hits(n, ceiling, alpha), n, rate) >= power
    short = np.flatnonzero(~enough)
    return int(n[0] if not len(short) else n[min(short[-1] + 1, len(n) - 1)])


def prompts_without_hits(ceiling: float, *, alpha: float) -> int:
    """Fewest prompts whose bound keeps the ceiling if none of them has a hit; with fewer no checkpoint can pass."""
    if not 0 < ceiling <= 1:
        raise ValueError(f"a ceiling lies above 0 and at most at 1, got {ceiling}")
    return 1 if ceiling == 1 else max(1, math.ceil(math.log(alpha) / math.log1p(-ceiling) - 1e-9))


def _most_hits(n: np.ndarray, ceiling: float, alpha: float) -> np.ndarray:
    """For each n the most hits x whose bound keeps the ceiling; P(X <= x | ceiling) <= alpha says the same."""
    low, high = np.zeros_like(n), n - 1
    while (low < high).any():
        middle = (low + high + 1) // 2
        keeps = betainc(middle + 1, n - middle, ceiling) >= 1 - alpha
        low, high = np.where(keeps, middle, low), np.where(keeps, high, middle - 1)
    return low


def _reach(power: float, alpha: float, sd: float) -> float:
    """(z(1 - alpha) + z(power)) * sd."""
    if not (0.5 <= power < 1 and 0 < alpha < 0.5 and sd > 0 and math.isfinite(sd)):
        raise ValueError(
            f"wanted a power from 0.5 below 1, an alpha below 0.5 and a deviation above 0, got {power}, {alpha}, {sd}"
        )
    return float(norm.isf(alpha) + norm.ppf(power)) * sd
