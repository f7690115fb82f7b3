"""What choosing the best of n responses by a reward model buys, and how far it moves from the policy."""

import math

import numpy as np
from numpy.typing import ArrayLike

from reward.metrics import finite_pair


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
