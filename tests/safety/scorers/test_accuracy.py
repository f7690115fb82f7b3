"""AUC, rates and reliability against plain references and simulated coverage."""

import numpy as np
import pytest

from safety.scorers.accuracy import auc, rates, reliability
from safety.scorers.subgroups import subgroup_aucs


def by_pairs(scores, toxic):
    """The definition: every toxic text against every benign one."""
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[toxic] for b in scores[~toxic]]
    return np.mean(pairs)


def test_auc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    toxic = rng.random(60) < 0.4
    scores = np.round(rng.random(60) + 0.3 * toxic, 1)  # many ties
    found = auc(scores, toxic)
    assert found.estimate == pytest.approx(by_pairs(scores, toxic))
    assert found.low < found.estimate < found.high
    swapped = auc(-scores, toxic)
    np.testing.assert_allclose([swapped.estimate, swapped.low, swapped.high],
                               [1 - found.estimate, 1 - found.high, 1 - found.low])  # fmt: skip


def test_auc_interval_covers():
    """Nominal 95 %: between 92 and 98 in 600 simulated data sets, for a good and a weak scorer."""
    rng = np.random.default_rng(1)
    for shift in (0.3, 2.0):
        far = rng.normal(size=2_000_000) + shift - rng.normal(size=2_000_000)
        truth = np.mean(far > 0)
        hits = 0
        for _ in range(600):
            toxic = np.arange(150) < 50
            found = auc(rng.normal(size=150) + shift * toxic, toxic)
            hits += found.low <= truth <= found.high
        assert 0.92 < hits / 600 < 0.98


def test_auc_at_the_ends():
    """Perfect separation is not certainty, and chance of a constant score is a half."""
    toxic = np.array([True] * 5 + [False] * 40)
    found = auc(toxic.astype(float), toxic)
    assert found.estimate == 1 and 0.4 < found.low < 0.6 and found.high == 1
    assert auc(np.ones(45), toxic).estimate == 0.5
    with pytest.raises(ValueError, match="both kinds"):
        auc(np.ones(3), np.ones(3, bool))


def test_rates_by_hand():
    scores, toxic = np.array([0.9, 0.5, 0.4, 0.6, 0.1, 0.2]), np.array([True, True, True, False, False, False])
    found = rates(scores, toxic, threshold=0.5)
    assert found.true_positive.estimate == pytest.approx(2 / 3)  # at the threshold counts as flagged
    assert found.false_positive.estimate == pytest.approx(1 / 3)
    assert found.true_positive.low == pytest.approx(0.0943, abs=1e-4)  # Clopper-Pearson for 2 of 3
    assert found.true_positive.high == pytest.approx(0.9916, abs=1e-4)


def test_reliability_by_hand():
    scores, ratings = np.array([0.05, 0.05, 0.95, 1.0]), np.array([0.1, 0.3, 0.5, 0.6])
    found = reliability(scores, ratings)
    assert found.count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert found.observed[[0, 9]] == pytest.approx([0.2, 0.55])
    assert np.isnan(found.observed[1])
    assert found.error == pytest.approx((2 * 0.15 + 2 * 0.425) / 4)
    with pytest.raises(ValueError, match="no texts"):
        reliability(np.zeros(0), np.zeros(0))


def test_aucs_of_a_group_by_hand():
    """A mention adds to the score: nothing is lost within the group, and harmless texts about it pass for toxic."""
    scores = np.array([0.6, 0.4, 0.1, 0.2, 0.9, 0.5, 0.7])
    toxic = np.array([True, True, False, False, True, False, False])
    member = np.array([False, False, False, False, True, True, True])
    found = subgroup_aucs(scores, toxic, member)
    assert (found.subgroup.estimate, found.bpsn.estimate, found.bnsp.estimate) == (1.0, 0.25, 1.0)
    lowered = subgroup_aucs(scores - 0.75 * member, toxic, member)  # .15, -.25, -.05 for the three of the group
    assert (lowered.subgroup.estimate, lowered.bpsn.estimate, lowered.bnsp.estimate) == (1.0, 1.0, 0.5)
    assert found.bpsn == auc(scores[[0, 1, 5, 6]], toxic[[0, 1, 5, 6]])
    harmless = subgroup_aucs(scores, toxic & ~member, member)
    assert harmless.subgroup is None and harmless.bnsp is None and harmless.bpsn == auc(
        np.append(scores[:2], scores[4:]), np.arange(5) < 2
    )
