"""Intervals: exact values, degenerate cases, and coverage by simulation."""

import numpy as np
import pytest
from scipy.stats import beta

from safety.statistics import bootstrap_mean, clopper_pearson, clustered_fraction, paired_bootstrap


@pytest.mark.parametrize(("hits", "trials"), [(0, 59), (3, 40), (40, 40), (12, 180)])
def test_clopper_pearson_is_the_beta_quantile(hits, trials):
    """Against scipy.stats.beta, one- and two-sided."""
    two = clopper_pearson(hits, trials, alpha=0.05)
    assert two.low == pytest.approx(beta.ppf(0.025, hits, trials - hits + 1) if hits else 0)
    assert two.high == pytest.approx(beta.ppf(0.975, hits + 1, trials - hits) if hits < trials else 1)
    upper = clopper_pearson(hits, trials, alpha=0.05, sides="upper")
    assert upper.low == 0
    assert upper.high == pytest.approx(beta.ppf(0.95, hits + 1, trials - hits) if hits < trials else 1)
    assert clopper_pearson(hits, trials, sides="lower").high == 1


@pytest.mark.parametrize(("trials", "proves"), [(59, 0.05), (299, 0.01), (2995, 0.001)])
def test_zero_hits_prove_what_they_prove(trials, proves):
    """Zero hits in 59 / 299 / 2,995 show less than 5 / 1 / .1 %, with one fewer not."""
    assert clopper_pearson(0, trials, sides="upper").high < proves < clopper_pearson(0, trials - 1, sides="upper").high


def test_no_interval_of_a_proportion_has_zero_width():
    """All prompts clean, or all toxic: the bound still says how little that shows."""
    for value in (0.0, 1.0):
        for interval in (
            clustered_fraction(np.full(50, value), samples=25, seed=0),
            bootstrap_mean(np.full(50, value), seed=0),
            paired_bootstrap(np.full(50, value), np.full(50, value), seed=0),
        ):
            assert interval.high - interval.low > 0.03
    clean = clustered_fraction(np.zeros(50), samples=25, seed=0, sides="upper")
    assert clean.high == pytest.approx(clopper_pearson(0, 50, sides="upper").high)


def test_bootstrap_is_seeded_and_nested():
    """The same seed gives the same interval; one-sided ends are those of the two-sided interval at twice alpha."""
    values = np.random.default_rng(0).random(80)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    upper = bootstrap_mean(values, seed=1, alpha=0.05, sides="upper")
    lower = bootstrap_mean(values, seed=1, alpha=0.05, sides="lower")
    both = bootstrap_mean(values, seed=1, alpha=0.10)
    assert (upper.high, lower.low) == (both.high, both.low)
    assert (upper.low, lower.high) == (0, 1)
    assert both.estimate == pytest.approx(values.mean())


def test_bootstrap_matches_the_normal_interval():
    """With many prompts the percentile interval is mean -+ 1.96 standard errors; chunked draws included."""
    values = np.random.default_rng(1).random(3000)
    error = values.std(ddof=1) / np.sqrt(len(values))
    interval = bootstrap_mean(values, seed=0, resamples=4000)
    np.testing.assert_allclose(interval[1:], values.mean() + np.array([-1.96, 1.96]) * error, atol=0.1 * error)


def test_pairing_helps():
    """Differences of positively related values are known better than either value."""
    rng = np.random.default_rng(2)
    parent = rng.random(100)
    child = np.clip(parent + 0.02 * rng.standard_normal(100), 0, 1)
    paired = paired_bootstrap(child, parent, seed=0)
    assert paired.estimate == pytest.approx((child - parent).mean())
    assert paired.high - paired.low < 0.02


def _coverage(draw, truth, interval, repeats):
    rng = np.random.default_rng(0)
    return np.mean([interval(draw(rng)).high >= truth for _ in range(repeats)])


def test_coverage_of_the_one_sided_bounds():
    """Nominal 95 % bounds cover about that for clustered samples; sample-wise resampling would cover far less."""

    def draw(rng):  # 60 prompts x 10 samples whose rates differ between prompts: beta(.5, 2), mean .2
        return rng.binomial(10, rng.beta(0.5, 2, size=60)) / 10

    bootstrap = _coverage(draw, 0.2, lambda v: bootstrap_mean(v, seed=0, resamples=400, sides="upper"), 500)
    clustered = _coverage(
        draw, 0.2, lambda v: clustered_fraction(v, samples=10, seed=0, resamples=400, sides="upper"), 500
    )
    naive = _coverage(draw, 0.2, lambda v: clopper_pearson(v.sum() * 10, 600, sides="upper"), 500)
    assert 0.91 <= bootstrap <= 0.98
    assert 0.93 <= clustered <= 1
    assert naive < 0.88


def test_skewed_values():
    """Values that are 0 of most prompts and large of a few: percentiles of resampled means alone cover .877 here."""
    draw = lambda rng: rng.binomial(25, rng.beta(0.3, 8, size=40)) / 25  # noqa: E731
    bound = lambda values: bootstrap_mean(values, seed=0, resamples=400, sides="upper")  # noqa: E731
    assert _coverage(draw, 0.3 / 8.3, bound, 600) >= 0.89
    values = draw(np.random.default_rng(1))
    interval, mirrored = bootstrap_mean(values, seed=0), bootstrap_mean(1 - values, seed=0)
    assert interval.high - interval.estimate > 1.2 * (interval.estimate - interval.low)
    assert (1 - mirrored.high, 1 - mirrored.low) == pytest.approx((interval.low, interval.high))
    # One prompt apart from all others, and a tail too small for any percentile: the largest of the resampled means.
    alone = np.eye(1, 20)[0]
    assert bootstrap_mean(alone, seed=0, alpha=1e-9).high <= 1


def test_coverage_with_rare_hits():
    """Where hits are in a handful of prompts the bootstrap alone is too narrow, the clustered fraction is not."""

    def draw(rng):  # 2 % of prompts are toxic in all their samples
        return (rng.random(60) < 0.02).astype(float)

    clustered = _coverage(
        draw, 0.02, lambda v: clustered_fraction(v, samples=10, seed=0, resamples=400, sides="upper"), 400
    )
    assert clustered >= 0.95


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_mean(np.zeros(0), seed=0),
        lambda: bootstrap_mean(np.array([0.1, np.nan]), seed=0),
        lambda: bootstrap_mean(np.array([0.1, 1.5]), seed=0),
        lambda: bootstrap_mean(np.ones(3), seed=0, alpha=0.7),
        lambda: bootstrap_mean(np.ones(3), seed=0, sides="both"),
        lambda: bootstrap_mean(np.ones(3), seed=0, resamples=0),
        lambda: paired_bootstrap(np.ones(3), np.ones(4), seed=0),
        lambda: clopper_pearson(3, 2),
        lambda: clopper_pearson(0, 0),
    ],
)
def test_bad_arguments(call):
    """No interval is made of nothing."""
    with pytest.raises((ValueError, TypeError)):  # TypeError: jaxtyping's, which sees some of these first
        call()
