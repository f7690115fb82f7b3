"""The reward model's gate: what passes, each clause's failure, and broken evidence."""

import json

import numpy as np
import pytest

from safety.gate_folder import require_passing
from safety.reward_gate import (
    RewardEvidence,
    best_minus_random,
    judge_reward,
    reward_gate,
    within_prompt_correlation,
)
from safety.reward_policy import quickstart
from safety.scorer import ScorerIdentity
from training.errors import GateInconclusive


@pytest.fixture
def evidence():
    """A good reward model: 90 % accurate, and its reward falls with toxicity."""
    rng = np.random.default_rng(0)
    toxicity, lengths = rng.random((60, 8)), rng.integers(1, 20, (60, 8)).astype(float)
    return RewardEvidence(
        less_toxic_preferred=np.arange(100) % 10 != 0,
        rewards=-toxicity + 0.1 * rng.standard_normal((60, 8)),
        toxicity=toxicity,
        lengths=lengths,
        padding_difference=1e-6,
        batch_difference=0.0,
        reward_fingerprint="f",
        policy_fingerprint="f",
        scorer=ScorerIdentity("word", "1", "sha256:" + "0" * 64),
    )


def test_maths_by_hand():
    """Spearman within a prompt, 0 for constants; the favourite's toxicity less the mean, ties shared."""
    a = np.array([[1.0, 2, 3], [1, 2, 3], [5, 5, 5]])
    b = np.array([[10.0, 20, 90], [3, 2, 1], [1, 2, 3]])
    np.testing.assert_allclose(within_prompt_correlation(a, b), [1, -1, 0])
    toxicity = np.array([[0.0, 0, 0.9], [0.3, 0, 0], [0.1, 0.2, 0.6]])
    np.testing.assert_allclose(best_minus_random(a, toxicity), [0.6, -0.1, 0], atol=1e-12)


def test_pass_and_files(evidence, checkpoint, tmp_path):
    """A good one passes, and PPO would accept its verdict."""
    verdict = reward_gate(lambda: evidence, quickstart(), checkpoint=checkpoint, folder=tmp_path / "gate")
    assert verdict.passed, verdict.reasons
    assert require_passing(tmp_path / "gate", checkpoint, "reward") == verdict
    report = json.loads((tmp_path / "gate" / "report.json").read_text())
    assert report["metrics"]["accuracy"]["estimate"] == 0.9
    assert report["metrics"]["best_of_n"]["estimate"] < 0


@pytest.mark.parametrize(
    ("change", "clause", "outcome"),
    [
        (lambda e: {"less_toxic_preferred": np.arange(100) % 2 == 0}, "reward/accuracy", "fail"),
        (lambda e: {"less_toxic_preferred": np.arange(100) % 5 > 1}, "reward/accuracy", "inconclusive"),
        (lambda e: {"rewards": e.toxicity}, "reward/best_of_n", "fail"),
        (lambda e: {"rewards": e.toxicity}, "reward/toxicity_correlation", "fail"),
        (lambda e: {"rewards": e.lengths}, "reward/length_correlation", "fail"),
        (lambda e: {"rewards": -e.lengths}, "reward/length_correlation", "fail"),
        (lambda e: {"padding_difference": 0.1}, "invariance/padding", "fail"),
        (lambda e: {"batch_difference": 0.1}, "invariance/batch_size", "fail"),
        (lambda e: {"policy_fingerprint": "other"}, "invariance/fingerprint", "fail"),
    ],
)
def test_each_clause(evidence, change, clause, outcome):
    """One thing wrong at a time."""
    clauses = {c.name: c for c in judge_reward(evidence._replace(**change(evidence)), quickstart())}
    assert clauses[clause].outcome == outcome


@pytest.mark.parametrize(
    "change",
    [
        {"less_toxic_preferred": np.ones(10, bool)},
        {"less_toxic_preferred": np.ones(100)},
        {"rewards": np.zeros((60, 7))},
        {"rewards": np.full((60, 8), np.nan)},
        {"toxicity": np.full((60, 8), 1.5)},
        {"toxicity": None},
        {"padding_difference": float("nan")},
        {"batch_difference": -1.0},
        {"reward_fingerprint": "", "policy_fingerprint": ""},
    ],
)
def test_broken_evidence_is_inconclusive(evidence, checkpoint, tmp_path, change):
    """Short, misshapen, not finite, out of range or missing."""
    broken = evidence._replace(**change)
    with pytest.raises((GateInconclusive, TypeError)):
        judge_reward(broken, quickstart())
    verdict = reward_gate(lambda: broken, quickstart(), checkpoint=checkpoint, folder=tmp_path / "gate")
    assert verdict.outcome == "inconclusive"


def test_a_measurement_that_raises_is_inconclusive(checkpoint, tmp_path):
    """Whatever breaks, no pass."""
    verdict = reward_gate(lambda: 1 / 0, quickstart(), checkpoint=checkpoint, folder=tmp_path / "gate")
    assert verdict.outcome == "inconclusive" and "ZeroDivisionError" in verdict.reasons[0]
