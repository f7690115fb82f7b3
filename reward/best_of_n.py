"""What choosing the best of n responses by a reward model buys, and how far it moves from the policy."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from reward.metrics import finite_pair


class Choice(NamedTuple):
    """What choosing the best of n by a proxy comes to, as a mean over prompts.

    Attributes:
      n: responses to choose from.
      kl: see `best_of_n_kl`.
      proxy: reward of the chosen response by the proxy that chose it.
      gold: its value by the measure that did not.
    """

    n: int
    kl: float
    proxy: float
    gold: float


def best_of_n_kl(n: int) -> float:
    """Upper bound on KL(best of n || policy) in nats: log n - (n - 1) / n.

    Exact if no two responses can tie. Beirami et al., "Theoretical guarantees on the best-of-n alignment
    policy" (2024).

    Args:
      n: responses to choose from.

    Returns:
      The bound, 0 for n = 1.

    Raises:
      ValueError: n < 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return math.log(n) - (n - 1) / n


def best_of_n_estimate(proxy: ArrayLike, gold: ArrayLike, *, n: int) -> float:
    """Unbiased estimate of the gold reward of the best of n responses by proxy, from N >= n samples of one prompt.

    sum_i C(i - 1, n - 1) / C(N, n) * gold_(i), sorted by proxy: the mean over all subsets of n samples. Nakano et al.,
    "WebGPT" (2021), appendix I. Among samples that tie on the proxy each is as likely to be chosen.

    Args:
      proxy: [N] rewards to choose by.
      gold: [N] rewards to report; pass `proxy` again for the proxy's own.
      n: responses to choose from.

    Returns:
      The estimate.

    Raises:
      ValueError: n outside [1, N], or arrays that are empty, of unequal length or not finite.
    """
    proxy, gold = finite_pair(proxy, gold, names="proxy and gold")
    total = len(proxy)
    if not 1 <= n <= total:
        raise ValueError(f"n must lie in [1, {total}], the number of samples, got {n}")
    _, rank, ties = np.unique(proxy, return_inverse=True, return_counts=True)
    gold = (np.bincount(rank, weights=gold) / ties)[np.sort(rank)]
    # Integer binomials, divided last: C(N, n) overflows a float long before N = 2000.
    subsets = math.comb(total, n)
    weights = [math.comb(i, n - 1) / subsets for i in range(total)]
    return float(np.dot(weights, gold))


def best_of_n_curve(proxy: ArrayLike, gold: ArrayLike) -> list[Choice]:
    """Proxy and gold against the divergence that best-of-n costs, for n = 1, 2, 4, ... and all N.

    Where the proxy rises on and the gold turns, the proxy is over-optimised: Gao et al., "Scaling Laws for Reward Model
    Overoptimization" (2022).

    Args:
      proxy: [P, N] rewards of N samples of each of P prompts, to choose by.
      gold: [P, N] what is measured of the choice.

    Returns:
      One choice for each n, with increasing n.

    Raises:
      ValueError: not two tables of one shape, or numbers that are not finite.
    """
    proxy, gold = np.asarray(proxy, np.float64), np.asarray(gold, np.float64)
    if proxy.ndim != 2 or proxy.shape != gold.shape or not proxy.size:
        raise ValueError(f"proxy and gold must be tables [prompts, samples] of one shape, got {proxy.shape} and "
                         f"{gold.shape}")  # fmt: skip
    count = proxy.shape[1]

    def mean(reported: np.ndarray, n: int) -> float:
        rows = zip(proxy, reported, strict=True)
        return float(np.mean([best_of_n_estimate(by, values, n=n) for by, values in rows]))

    sizes = sorted({2**power for power in range(count.bit_length())} | {count})
    return [Choice(n, best_of_n_kl(n), mean(proxy, n), mean(gold, n)) for n in sizes]
