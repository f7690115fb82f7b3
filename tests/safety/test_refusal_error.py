"""The error of the detector of refusals, measured on labelled replies, and the shares that allow for it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safety import usefulness
from safety.gate import gate
from safety.policy import UtilityFloors
from safety.refusal_error import DetectorError, corrected_share, detector_error, was_seen
from safety.refusals import is_refusal
from safety.statistics import clustered_fraction, in_words
from training.digest import folder_digest
from training.errors import BadInput, GateInconclusive

ROWS = Path(usefulness.__file__).with_name("data") / "refusals.jsonl"
OPTIONS = {"samples": 2, "seed": 0, "resamples": 200}


def error(found, flagged, of=10_000):
    return DetectorError("sha256:0", of, found, of, flagged)


def test_the_shipped_rows():
    """Enough of both kinds for an interval, each once; the counts are those of the detector itself."""
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    assert len({row["reply"] for row in rows}) == len(rows)
    measured = detector_error()
    assert min(measured.refusals, measured.answers) >= 100
    others = detector_error(seen=True)
    assert measured.refusals + others.refusals + measured.answers + others.answers == len(rows)
    rows = [row for row in rows if not was_seen(row["reply"])]
    assert measured.found == sum(is_refusal(row["reply"]) for row in rows if row["refuses"])
    assert measured.flagged == sum(is_refusal(row["reply"]) for row in rows if not row["refuses"])
    rates = measured.to_json(alpha=0.05)
    missed = rates["false_negative_rate"]
    assert missed["estimate"] == pytest.approx(1 - measured.found / measured.refusals)
    assert missed["low"] < missed["estimate"] < missed["high"]


def test_by_hand():
    """40 of 100 counted, half found, none flagged: 80 refused. All found, a fifth flagged: a quarter of them."""
    counted = np.repeat([1.0, 0.0], [40, 60])
    assert corrected_share(counted, error(5_000, 0), **OPTIONS).estimate == pytest.approx(0.8)
    assert corrected_share(counted, error(10_000, 2_000), **OPTIONS).estimate == pytest.approx(0.25)
    assert corrected_share(counted, error(2_000, 0), **OPTIONS).estimate == 1.0


def test_a_bound_takes_only_the_error_that_could_hide_a_violation():
    """An upper bound forgives no flagged answer, a lower one counts no refusal that was missed."""
    counted = np.repeat([1.0, 0.0], [40, 60])
    plain = {side: clustered_fraction(counted, alpha=0.025, sides=side, **OPTIONS) for side in ("upper", "lower")}
    for wrong in (error(10_000, 0), error(10_000, 2_000)):
        upper = corrected_share(counted, wrong, alpha=0.05, sides="upper", **OPTIONS)
        assert (upper.low, upper.high) == (0, pytest.approx(plain["upper"].high, rel=1e-3))
    for wrong in (error(10_000, 0), error(5_000, 0)):
        lower = corrected_share(counted, wrong, alpha=0.05, sides="lower", **OPTIONS)
        assert (lower.low, lower.high) == (pytest.approx(plain["lower"].low, rel=1e-2), 1)
    worse = corrected_share(counted, error(30, 1, of=60), alpha=0.05, sides="upper", **OPTIONS)
    assert worse.high == 1.0 > plain["upper"].high


def test_bounds_hold_in_spite_of_the_detector():
    """A detector that misses four in ten and flags three in a hundred: both bounds hold as often as they say."""
    rng = np.random.default_rng(0)
    held = {"upper": 0, "lower": 0}
    for _ in range(200):
        rates = np.clip(rng.beta(0.5, 2.0, 60), 0, 1)
        refused = rng.random((60, 4)) < rates[:, None]
        counted = np.where(refused, rng.random((60, 4)) < 0.6, rng.random((60, 4)) < 0.03).mean(axis=1)
        measured = DetectorError("x", 100, rng.binomial(100, 0.6), 100, rng.binomial(100, 0.03))
        for side in held:
            options = {"samples": 4, "seed": 0, "resamples": 100}
            bounds = corrected_share(counted, measured, alpha=0.1, sides=side, **options)
            held[side] += bounds.low <= 0.2 <= bounds.high
    assert min(held.values()) >= 0.88 * 200


@pytest.mark.parametrize("useless", [error(0, 0, of=100), error(50, 50, of=100), error(100, 100, of=100)])
def test_a_detector_that_tells_nothing_decides_nothing(useless):
    with pytest.raises(GateInconclusive, match="does not tell them apart"):
        corrected_share(np.zeros(50), useless, **OPTIONS)


@pytest.mark.parametrize(
    "content",
    ["", "no JSON", '{"reply": "No."}', '{"reply": "No.", "refuses": "yes"}', '{"reply": 1, "refuses": true}',
     '{"reply": "No.", "refuses": true}'],
)  # fmt: skip
def test_labelled_replies_that_are_none(tmp_path, content):
    """Missing, damaged, of one kind only."""
    path = tmp_path / "rows.jsonl"
    for wrong in (tmp_path / "none.jsonl", path):
        with pytest.raises(BadInput, match="detector of refusals"):
            detector_error(wrong)
        path.write_text(content)


def test_a_detector_that_cannot_be_tried_decides_nothing(
    sampler, prompts, scorer, policy, checkpoint, tmp_path, monkeypatch
):
    """Its rows are gone: the gate decides nothing, exit code 4."""

    def gone():
        raise BadInput("the labelled replies are gone")

    monkeypatch.setattr(usefulness, "detector_error", gone)
    policy = replace(policy, utility=UtilityFloors(max_refusals=0.2))
    verdict = gate(sampler(), prompts, scorer, policy, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint))  # fmt: skip
    with pytest.raises(GateInconclusive, match="labelled replies are gone"):
        verdict.raise_unless_passed()


def test_the_report_says_how_wrong_the_detector_is(sampler, prompts, scorer, policy, checkpoint, tmp_path):
    policy = replace(policy, utility=UtilityFloors(max_refusals=0.2))
    verdict = gate(sampler(), prompts, scorer, policy, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint))  # fmt: skip
    assert verdict.passed, verdict.reasons
    measured = detector_error()
    report = json.loads((tmp_path / "gate" / "report.json").read_text())
    assert report["refusal_detector"] == measured.to_json(alpha=policy.alpha)
    (reason,) = [clause.reason for clause in verdict.clauses if clause.name == "utility/refusals"]
    assert f"finds {measured.found} of {measured.refusals} refusals" in reason


def test_the_documents_say_what_is_measured():
    page = (ROWS.parents[2] / "docs" / "gates.md").read_text(encoding="utf-8")
    for half, seen in (("counted", False), ("seen", True)):
        measured = detector_error(seen=seen)
        rates = measured.to_json(alpha=0.05)
        for kind, count, wrong, rate in (
            ("refusals, missed", measured.refusals, measured.refusals - measured.found, "false_negative_rate"),
            ("answers, taken for refusals", measured.answers, measured.flagged, "false_positive_rate"),
        ):
            assert f"| {half} | {count} {kind} | {wrong} | {in_words(rates[rate])} |" in page
