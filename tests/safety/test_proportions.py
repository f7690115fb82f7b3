"""Intervals of proportions and of their differences, against scipy, published examples and simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from safety.proportions import holm, mcnemar, newcombe, newcombe_paired, wilson


@pytest.mark.parametrize(("hits", "trials"), [(0, 20), (3, 40), (40, 40), (12, 180), (1, 1)])
def test_wilson_is_scipys(hits, trials):
    """Two-sided against scipy; a one-sided bound is the end at twice alpha."""
    got, reference = wilson(hits, trials), binomtest(hits, trials).proportion_ci(0.95, "wilson")
    np.testing.assert_allclose(got[1:], (reference.low, reference.high), atol=1e-12)
    assert got.estimate == hits / trials
    upper = wilson(hits, trials, alpha=0.05, sides="upper")
    assert upper.low == 0 and upper.high == pytest.approx(wilson(hits, trials, alpha=0.10).high)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        ((56, 48), (70, 80), 0.0524, 0.3339),
        ((9, 3), (10, 10), 0.1705, 0.8090),
        ((10, 0), (10, 20), 0.6791, 1.0),
        ((10, 0), (10, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_gives_his_examples(hits, trials, low, high):
    """Newcombe (1998), Statistics in Medicine 17:873, table II, method 10."""
    got = newcombe(hits, trials)
    assert got[1:] == pytest.approx((low, high), abs=6e-5)
    assert newcombe(hits[::-1], trials[::-1])[1:] == pytest.approx((-high, -low), abs=6e-5)


@pytest.mark.parametrize(
    ("cells", "low", "high"),
    [((1, 1, 7, 12), -0.5069, -0.0256), ((36, 12, 2, 0), 0.0569, 0.3404), ((0, 0, 0, 50), -0.0714, 0.0714)],
)
def test_paired_newcombe_gives_published_examples(cells, low, high):
    """Airway reactivity before and after a transplant (Bentur et al. 2009); Newcombe's (1998) table; no hit at all."""
    got = newcombe_paired(*cells)
    assert got[1:] == pytest.approx((low, high), abs=1e-4)
    swapped = (cells[0], cells[2], cells[1], cells[3])
    assert newcombe_paired(*swapped)[1:] == pytest.approx((-got.high, -got.low))


def test_pairs_that_agree_are_known_better():
    """Fewer discordant pairs, a narrower interval; and never wider than for independent samples."""
    widths = [np.diff(newcombe_paired(30 - d, d, d, 70 - d)[1:])[0] for d in (0, 5, 15, 20)]
    assert widths == sorted(widths) and widths[0] < 0.6 * widths[-1]
    assert widths[-1] <= np.diff(newcombe((30, 30), (100, 100))[1:])[0] + 1e-9


def test_mcnemar_is_the_sign_test():
    """Against scipy's binomial test; nothing discordant shows nothing."""
    for b, c in ((0, 5), (3, 9), (7, 7), (0, 0)):
        expected = binomtest(min(b, c), b + c).pvalue if b + c else 1.0
        assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(expected)


def test_holm_by_hand():
    """0.01 0.04 0.03 0.005 of four: times 3, 1, 2, 4, and no smaller than the one before; as statsmodels has it."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.02]) == [0.02]


def test_holm_keeps_its_error():
    """With nothing to find, some label looks changed in about 5 % of tables, not in 5 % of labels."""
    rng = np.random.default_rng(0)
    found = [min(holm(list(rng.random(7)))) <= 0.05 for _ in range(2000)]
    assert 0.035 <= np.mean(found) <= 0.065


def test_coverage_of_the_upper_bounds():
    """Nominal 95 %, at 60 prompts of which 20 % have a hit, paired and not."""
    rng, covered = np.random.default_rng(1), np.zeros(3)
    for _ in range(800):
        rates = rng.beta(0.5, 2, size=(2, 60))
        first, second = rng.random((2, 60)) < rates[0]  # the same prompts
        other = rng.random(60) < rates[1]
        cells = [(first & second).sum(), (first & ~second).sum(), (~first & second).sum(), (~first & ~second).sum()]
        covered[0] += newcombe_paired(*map(int, cells), sides="upper").high >= 0
        covered[1] += newcombe((int(first.sum()), int(other.sum())), (60, 60), sides="upper").high >= 0
        covered[2] += wilson(int(first.sum()), 60, sides="upper").high >= 0.2
    assert (covered / 800 >= 0.93).all() and (covered[:2] / 800 <= 0.98).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, alpha=0.7),
        lambda: newcombe((1, 2), (3, 0)),
        lambda: newcombe_paired(0, 0, 0, 0),
        lambda: newcombe_paired(1, -1, 1, 1),
        lambda: mcnemar(-1, 0),
        lambda: holm([0.1, 1.2]),
        lambda: holm([float("nan")]),
    ],
)
def test_bad_arguments(call):
    """No interval is made of nothing."""
    with pytest.raises(ValueError):
        call()
