from pathlib import Path

import numpy as np
import pytest

from reward.calibration import calibration, randomise_orientation, reliability

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))
DELTA, LABEL = GOLDEN["rm.in.cal_delta"], GOLDEN["rm.in.cal_label"]


@pytest.mark.parametrize("bins", [10, 15])
def test_golden_calibration_errors(bins):
    measured = calibration(DELTA, LABEL, bins=bins)
    for kind, table in [("pos", measured.probability), ("conf", measured.confidence)]:
        np.testing.assert_allclose(table.error, GOLDEN[f"rm.cal.ece_{kind}_b{bins}"], rtol=1e-10)
        np.testing.assert_allclose(table.max_error, GOLDEN[f"rm.cal.mce_{kind}_b{bins}"], rtol=1e-10)


def test_golden_nll_brier_and_probabilities():
    measured = calibration(DELTA, LABEL)
    np.testing.assert_allclose(measured.nll, GOLDEN["rm.cal.nll"], rtol=1e-10)
    np.testing.assert_allclose(measured.brier, GOLDEN["rm.cal.brier"], rtol=1e-10)
    table, golden = measured.probability, reliability(GOLDEN["rm.cal.prob"], LABEL)
    np.testing.assert_allclose(table.predicted, golden.predicted, rtol=1e-12)


def test_reliability_equals_a_naive_reference():
    rng = np.random.default_rng(0)
    prediction, outcome = rng.uniform(0.1, 1, 50), rng.integers(0, 2, 50)
    measured = reliability(prediction, outcome, bins=4)
    error = 0.0
    for i in range(4):
        inside = [k for k in range(50) if i / 4 <= prediction[k] < (i + 1) / 4]
        predicted, observed = np.mean(prediction[inside]), np.mean(outcome[inside])
        np.testing.assert_allclose([measured.predicted[i], measured.observed[i]], [predicted, observed], rtol=1e-12)
        assert measured.count[i] == len(inside)
        error += abs(predicted - observed) * len(inside) / 50
    np.testing.assert_allclose(measured.error, error, rtol=1e-12)


def test_the_ends_of_the_range_and_empty_intervals():
    measured = reliability([0.0, 1.0, 1.0], [0, 1, 0], bins=4)
    assert measured.count.tolist() == [1, 0, 0, 2]
    np.testing.assert_array_equal(measured.observed, [0, np.nan, np.nan, 0.5])
    assert (measured.error, measured.max_error) == (pytest.approx(1 / 3), 0.5)


def test_orientation_is_random_balanced_and_seeded():
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 2000))
    pairs = randomise_orientation(chosen, rejected, seed=1)
    assert abs(pairs.label.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(pairs.delta, np.where(pairs.label == 1, 1, -1) * (chosen - rejected))
    np.testing.assert_array_equal(pairs.label, randomise_orientation(chosen, rejected, seed=1).label)
    assert (pairs.label != randomise_orientation(chosen, rejected, seed=2).label).any()


def test_nll_and_brier_do_not_depend_on_the_orientation():
    chosen, rejected = np.random.default_rng(0).normal(size=(2, 100))
    measured = [calibration(*randomise_orientation(chosen, rejected, seed=seed)) for seed in (0, 1)]
    np.testing.assert_allclose(measured[0][:2], measured[1][:2], rtol=1e-12)
    np.testing.assert_allclose(measured[0].nll, np.mean(np.log(1 + np.exp(rejected - chosen))), rtol=1e-12)
    np.testing.assert_allclose(measured[0].confidence.error, measured[1].confidence.error, rtol=1e-12)


def test_a_certain_mistake_is_finite_and_no_preference_is_wrong():
    assert calibration([-1000.0], [1]).nll == 1000
    assert calibration([0.0, 0.0], [0, 1]).confidence.observed[5] == 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="prediction must lie in"):
        reliability([1.5], [1])
    with pytest.raises(ValueError, match="delta and label must be non-empty"):
        calibration([], [])
    with pytest.raises(ValueError, match="chosen and rejected must be finite"):
        randomise_orientation([np.nan], [0.0], seed=0)
