from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from reward.best_of_n import best_of_n_curve, best_of_n_estimate, best_of_n_kl

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))
PROXY, GOLD = GOLDEN["bon.in.proxy"], GOLDEN["bon.in.gold"]


def test_golden_kl_bound():
    np.testing.assert_allclose([best_of_n_kl(int(n)) for n in GOLDEN["bon.n"]], GOLDEN["bon.kl_bound"], rtol=1e-12)


@pytest.mark.parametrize(("key", "reported"), [("gold", GOLD), ("proxy", PROXY)])
def test_golden_estimates(key, reported):
    estimates = [best_of_n_estimate(PROXY, reported, n=n) for n in range(1, 10)]
    np.testing.assert_allclose(estimates, GOLDEN[f"bon.{key}_of_best_proxy"], rtol=1e-10)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_equals_all_subsets_with_ties_shared(n):
    proxy, gold = np.array([1.0, 3, 3, 2, 3, 1]), np.random.default_rng(0).normal(size=6)
    means = []
    for subset in map(list, combinations(range(6), n)):
        best = [i for i in subset if proxy[i] == proxy[subset].max()]
        means.append(gold[best].mean())
    np.testing.assert_allclose(best_of_n_estimate(proxy, gold, n=n), np.mean(means), rtol=1e-12)


def test_does_not_depend_on_the_order_and_ends_at_mean_and_maximum():
    order = np.random.default_rng(0).permutation(9)
    assert best_of_n_estimate(PROXY[order], GOLD[order], n=3) == pytest.approx(best_of_n_estimate(PROXY, GOLD, n=3))
    assert best_of_n_estimate(PROXY, GOLD, n=1) == pytest.approx(GOLD.mean())
    assert best_of_n_estimate(PROXY, GOLD, n=9) == GOLD[PROXY.argmax()]


def test_the_curve_is_the_mean_over_prompts():
    """A golden prompt, and one whose gold falls as its proxy rises."""
    curve = best_of_n_curve([PROXY, PROXY], [GOLD, -PROXY])
    assert [choice.n for choice in curve] == [1, 2, 4, 8, 9]
    at = np.array([choice.n for choice in curve]) - 1
    by_proxy, by_gold = (GOLDEN[f"bon.{name}_of_best_proxy"][at] for name in ("proxy", "gold"))
    np.testing.assert_allclose([choice.kl for choice in curve], [best_of_n_kl(choice.n) for choice in curve])
    np.testing.assert_allclose([choice.proxy for choice in curve], by_proxy, rtol=1e-10)
    np.testing.assert_allclose([choice.gold for choice in curve], (by_gold - by_proxy) / 2, rtol=1e-10)


def test_many_samples_do_not_overflow():
    proxy = np.arange(3000.0)
    # The expected maximum of n of the numbers 0..N-1 is n (N + 1) / (n + 1) - 1.
    assert best_of_n_estimate(proxy, proxy, n=1000) == pytest.approx(1000 * 3001 / 1001 - 1)


def test_bad_input_is_refused():
    for n in (0, 10):
        with pytest.raises(ValueError, match=r"n must lie in \[1, 9\]"):
            best_of_n_estimate(PROXY, GOLD, n=n)
    with pytest.raises(ValueError, match="n must be at least 1"):
        best_of_n_kl(0)
    with pytest.raises(ValueError, match="proxy and gold must be finite"):
        best_of_n_estimate([np.nan], [1.0], n=1)
    with pytest.raises(ValueError, match=r"tables \[prompts, samples\] of one shape, got \(9,\) and \(9,\)"):
        best_of_n_curve(PROXY, GOLD)
