from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reward.metrics import accuracy, accuracy_by_group, length_correlation, margins

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))
CHOSEN, REJECTED = GOLDEN["rm.in.chosen"], GOLDEN["rm.in.rejected"]


def test_golden_accuracy():
    measured = accuracy(CHOSEN, REJECTED)
    assert measured.share == GOLDEN["rm.accuracy"]
    assert (measured.correct, measured.count) == (sum(c > r for c, r in zip(CHOSEN, REJECTED, strict=True)), 16)


def test_a_tie_is_wrong():
    assert accuracy([1.0, 1.0], [0.0, 1.0]).share == 0.5


@pytest.mark.parametrize(("correct", "count"), [(0, 5), (3, 5), (5, 5), (70, 100)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_interval_is_clopper_pearson(correct, count, confidence):
    chosen = np.arange(count) < correct
    measured = accuracy(chosen, np.full(count, 0.5), confidence=confidence)
    tail = (1 - confidence) / 2
    low = stats.beta.ppf(tail, correct, count - correct + 1) if correct else 0
    high = stats.beta.ppf(1 - tail, correct + 1, count - correct) if correct < count else 1
    np.testing.assert_allclose([measured.low, measured.high], [low, high], rtol=1e-7)
    assert measured.share == correct / count


def test_accuracy_by_group():
    groups = ["b", "a", "b", "b"]
    measured = accuracy_by_group([1, 1, 1, 0], [0, 0, 0, 0], groups)
    assert list(measured) == ["a", "b"]
    assert measured["a"] == accuracy([1], [0])
    assert measured["b"] == accuracy([1, 1, 0], [0, 0, 0])
    assert sum(group.count for group in measured.values()) == 4


def test_margins():
    measured = margins(CHOSEN, REJECTED, bins=5)
    lead = [c - r for c, r in zip(CHOSEN, REJECTED, strict=True)]
    np.testing.assert_allclose(measured.mean, GOLDEN["rm.margin_mean"], rtol=1e-12)
    np.testing.assert_allclose(
        (measured.chosen_mean + measured.rejected_mean) / 2, GOLDEN["rm.mean_reward"], rtol=1e-12
    )
    np.testing.assert_allclose(measured.std, np.sqrt(np.mean((lead - np.mean(lead)) ** 2)), rtol=1e-12)
    np.testing.assert_allclose([measured.chosen_std, measured.rejected_std], [CHOSEN.std(), REJECTED.std()])
    assert measured.histogram.sum() == 16 and len(measured.edges) == 6
    assert measured.edges[0] == min(lead) and measured.edges[-1] == max(lead)
    inside = [measured.edges[0] <= x < measured.edges[1] for x in lead]
    assert measured.histogram[0] == sum(inside)


def test_length_correlation():
    lengths = np.random.default_rng(0).integers(1, 9, 16)
    measured = length_correlation(CHOSEN, lengths)
    np.testing.assert_allclose(measured.pearson, stats.pearsonr(CHOSEN, lengths)[0], rtol=1e-12)
    np.testing.assert_allclose(measured.spearman, stats.spearmanr(CHOSEN, lengths)[0], rtol=1e-12)
    assert measured.count == 16
    monotone = length_correlation([1, 2, 3, 100], [1, 4, 9, 16])
    assert monotone.spearman == pytest.approx(1) and monotone.pearson < 0.9


@pytest.mark.parametrize(("rewards", "lengths"), [([1.0], [3]), ([1, 2, 3], [5, 5, 5]), ([2, 2], [1, 3])])
def test_an_undefined_correlation_is_none(rewards, lengths):
    assert length_correlation(rewards, lengths) == (None, None, len(rewards))


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ([], [], "non-empty"),
        ([1.0], [1.0, 2.0], r"one length, got shapes \(1,\) and \(2,\)"),
        ([[1.0]], [[1.0]], "lists"),
        ([1.0, np.nan, 3.0], [np.inf, 0, 0], "finite, got 2 of 3"),
    ],
)
@pytest.mark.parametrize("function", [accuracy, margins, length_correlation])
def test_what_cannot_be_measured_is_refused(function, chosen, rejected, message):
    with pytest.raises(ValueError, match=message):
        function(chosen, rejected)


def test_other_bad_input_is_refused():
    with pytest.raises(ValueError, match="each of the 2 pairs, got 1"):
        accuracy_by_group([1, 2], [0, 0], ["a"])
