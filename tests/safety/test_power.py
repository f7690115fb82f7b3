"""Prompts needed: published figures, consistency with the tests themselves, and simulation."""

import numpy as np
import pytest
from scipy.stats import binom

from safety.power import (
    margin_resolved,
    power_at_margin,
    prompts_for_ceiling,
    prompts_for_margin,
    prompts_without_hits,
)
from safety.statistics import clopper_pearson, paired_bootstrap


@pytest.mark.parametrize(("margin", "at_80", "at_90"), [(0.05, 99, 138), (0.03, 275, 381), (0.02, 619, 857)])
def test_prompts_for_a_margin(margin, at_80, at_90):
    """SD .20, 5 % error; four times as many for twice the deviation, or for half the distance."""
    needed = [prompts_for_margin(margin, sd=0.2, power=power, alpha=0.05) for power in (0.8, 0.9)]
    assert needed == [at_80, at_90]
    assert prompts_for_margin(margin, sd=0.4, power=0.8, alpha=0.05) == pytest.approx(4 * at_80, abs=4)
    halfway = prompts_for_margin(margin, sd=0.2, power=0.8, alpha=0.05, effect=margin / 2)
    assert halfway == pytest.approx(4 * at_80, abs=4)
    assert margin_resolved(at_80, sd=0.2, power=0.8, alpha=0.05) <= margin
    assert margin_resolved(at_80 - 1, sd=0.2, power=0.8, alpha=0.05) > margin
    assert power_at_margin(at_80, margin, sd=0.2, alpha=0.05) == pytest.approx(0.8, abs=0.005)
    assert power_at_margin(at_80, margin, sd=0.2, alpha=0.05, effect=margin) == pytest.approx(0.05)


@pytest.mark.parametrize(("ceiling", "needed"), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_prompts_without_hits(ceiling, needed):
    """The same numbers as the bound's own."""
    assert prompts_without_hits(ceiling, alpha=0.05) == needed
    enough, short = (clopper_pearson(0, n, sides="upper").high for n in (needed, needed - 1))
    assert enough <= ceiling < short
    assert prompts_without_hits(1.0, alpha=0.05) == 1


@pytest.mark.parametrize(("power", "least", "most"), [(0.8, 180, 210), (0.9, 240, 290)])
def test_prompts_for_a_ceiling(power, least, most):
    """Ceiling .10, true share .05: 180 and 240 are the first that do, these the first from which all do."""
    n = prompts_for_ceiling(0.10, rate=0.05, power=power, alpha=0.05)
    assert least <= n <= most

    def passes(n):
        hits = np.arange(n + 1)
        keeps = np.array([clopper_pearson(int(x), n, sides="upper").high <= 0.10 for x in hits[: n // 5]])
        return binom.cdf(keeps.sum() - 1, n, 0.05)

    assert passes(n - 1) < power <= min(passes(m) for m in range(n, n + 12))


def test_the_formula_is_what_happens():
    """60 prompts, paired differences with a deviation of .17, margin .08: it passes as often as promised."""
    rng, passed = np.random.default_rng(0), 0
    parent = rng.uniform(0.3, 0.7, 60)
    for seed in range(400):
        child = np.clip(parent + rng.uniform(-1, 1, 60) * 0.25 * np.sqrt(3) * 0.68, 0, 1)
        passed += paired_bootstrap(child, parent, seed=seed, resamples=300, sides="upper").high <= 0.08
    expected = power_at_margin(60, 0.08, sd=0.25 * 0.68, alpha=0.05)
    assert passed / 400 == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize(
    "call",
    [
        lambda: prompts_for_margin(0.05, sd=0.2, power=0.8, alpha=0.05, effect=0.05),
        lambda: prompts_for_margin(0.05, sd=0.0, power=0.8, alpha=0.05),
        lambda: prompts_for_margin(0.05, sd=0.2, power=1.0, alpha=0.05),
        lambda: margin_resolved(0, sd=0.2, power=0.8, alpha=0.05),
        lambda: power_at_margin(0, 0.1, sd=0.2, alpha=0.05),
        lambda: prompts_for_ceiling(0.1, rate=0.1, power=0.8, alpha=0.05),
        lambda: prompts_without_hits(0.0, alpha=0.05),
    ],
)
def test_what_no_number_of_prompts_can_do(call):
    """An effect at the margin, a rate at the ceiling, certainty."""
    with pytest.raises(ValueError):
        call()
