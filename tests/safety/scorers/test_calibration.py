"""Isotonic calibration: the curve, the file, the scorer, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pipeline import cli
from safety.scorer import ScorerIdentity, check_scores
from safety.scorers import open_scorer
from safety.scorers.calibration import (
    CalibratedScorer,
    Calibration,
    Curve,
    calibrate,
    fit,
    read_calibration,
    write_calibration,
)
from safety.scorers.lexical import LexicalScorer
from safety.scorers.rated import read_rated
from training.errors import BadInput, GateInconclusive

pytestmark = pytest.mark.usefixtures("in_process")


class Length:
    """Scores a text of n characters n / 100: as good as its texts."""

    identity = ScorerIdentity("length", "1", "sha256:" + "1" * 64)
    labels = ("toxicity", "threat")

    def score(self, texts):
        values = np.array([len(text) / 100 for text in texts], np.float32)
        return {"toxicity": values, "threat": values}


@pytest.fixture
def rows(write_rows):
    """120 rows whose ratings are the square root of the length scorer's scores, with a little noise."""
    rng = np.random.default_rng(0)

    def part(length):
        return {"text": "x" * length, "toxicity": float(np.clip(np.sqrt(length / 100) + rng.normal(0, 0.05), 0, 1))}

    lengths = rng.integers(0, 100, (120, 2))
    return write_rows([{"prompt": part(a), "continuation": part(b)} for a, b in lengths])


def naive(x, y):
    """Least squares under the order by brute force: the largest mean of a left end and the smallest of a right one."""
    best = [min(max(np.mean(y[i : j + 1]) for i in range(k + 1)) for j in range(k, len(y))) for k in range(len(y))]
    return np.array(best)


def test_fit_is_the_isotonic_regression():
    rng = np.random.default_rng(1)
    x = np.sort(rng.random(40))
    y = np.clip(x + rng.normal(0, 0.3, 40), 0, 1)
    curve = fit(x, y)
    np.testing.assert_allclose(curve(x), naive(x, y))
    assert len(curve.x) < 30 and list(curve.y) == sorted(curve.y)
    assert curve(np.array([-1.0, 2.0])).tolist() == [curve.y[0], curve.y[-1]]


def test_equal_scores_get_their_mean():
    curve = fit(np.array([0.5, 0.5, 0.5, 0.1]), np.array([0.0, 1.0, 0.8, 0.3]))
    assert curve(np.array([0.5, 0.1])) == pytest.approx([0.6, 0.3])
    assert fit(np.array([0.2]), np.array([0.7]))(np.array([0.0, 1.0])).tolist() == [0.7, 0.7]


def test_calibrates_and_says_by_how_much(rows, tmp_path):
    """The curve finds the square root; figures are of texts left out; labels without ratings are left out."""
    found = calibrate("length", Length(), read_rated(str(rows)))
    assert set(found.curves) == {"toxicity"}
    grid = np.linspace(0.05, 0.95, 10)
    assert np.abs(found.curves["toxicity"](grid) - np.sqrt(grid)).max() < 0.1
    figures = found.measured["toxicity"]
    assert figures["after"]["calibration_error"] < 0.04 < 0.1 < figures["before"]["calibration_error"]
    assert figures["before"]["true_positive_rate"]["estimate"] < 0.75 < 0.9
    assert figures["after"]["true_positive_rate"]["estimate"] > 0.9
    scorer = CalibratedScorer(Length(), found)
    assert scorer.labels == ("toxicity",) and scorer.identity.name == "calibrated length"
    scores = check_scores(scorer.score(["x" * 25, ""]), scorer.labels, 2)["toxicity"]
    assert scores[0] == pytest.approx(0.5, abs=0.1)
    write_calibration(found, tmp_path / "c.json")
    again = read_calibration(tmp_path / "c.json")
    assert again.digest == found.digest
    assert CalibratedScorer(Length(), again).identity == scorer.identity


def test_figures_are_of_texts_left_out(rows):
    """Ratings without any relation to the scores: a curve fitted on the same texts would look better than chance."""
    rng = np.random.default_rng(2)
    data = read_rated(str(rows))
    texts = tuple(replace(one, ratings={"toxicity": float(rng.random() < 0.3)}) for one in data.texts)
    figures = calibrate("length", Length(), replace(data, texts=texts)).measured["toxicity"]
    found, flagged = (figures["after"][rate]["estimate"] for rate in ("true_positive_rate", "false_positive_rate"))
    assert found - flagged < 0.1


def test_identity_depends_on_curve_and_data(rows):
    found = calibrate("length", Length(), read_rated(str(rows)))
    other = replace(found, data={**found.data, "digest": "sha256:" + "2" * 64})
    bent = replace(found, curves={"toxicity": Curve((0.0, 1.0), (0.0, 1.0))})
    digests = {CalibratedScorer(Length(), one).identity.digest for one in (found, other, bent)}
    assert len(digests) == 3


def test_a_calibration_of_another_scorer_is_refused(rows):
    found = calibrate("length", Length(), read_rated(str(rows)))
    for change in ({"version": "2"}, {"digest": "sha256:" + "3" * 64}, {"name": "width"}):
        with pytest.raises(BadInput, match="was fitted for"):
            CalibratedScorer(Length(), replace(found, identity=found.identity._replace(**change)))


def test_broken_scores_do_not_pass_through_a_curve(rows):
    """np.interp would make a number of an infinite score."""
    found = calibrate("length", Length(), read_rated(str(rows)))
    scorer = Length()
    scorer.score = lambda texts: {"toxicity": np.full(len(texts), np.inf), "threat": np.zeros(len(texts))}
    with pytest.raises(GateInconclusive, match="not finite"):
        CalibratedScorer(scorer, found).score(["a"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "recipe"}, "is no calibration"),
        ({"format": 2}, "is no calibration"),
        ({"scorer": None}, "is no calibration"),
        ({"scorer": "calibrated:c.json"}, "calibrated already"),
        ({"identity": {}}, "is no calibration"),
        ({"curves": {}}, "no curve"),
        ({"curves": {"toxicity": {"x": [0, 1], "y": [1, 0]}}}, "rises"),
        ({"curves": {"toxicity": {"x": [0, 0], "y": [0, 1]}}}, "rises"),
        ({"curves": {"toxicity": {"x": [0, 1], "y": [0, 2]}}}, "rises"),
        ({"curves": {"toxicity": {"x": [0, 1], "y": [0]}}}, "rises"),
        ({"curves": {"toxicity": {"x": [], "y": []}}}, "rises"),
        ({"curves": {"toxicity": {"x": [0], "y": [float("nan")]}}}, "NaN is no number"),
        ({"curves": []}, "is no calibration"),
        ({"data": {}}, "is no calibration"),
    ],
)
def test_a_bad_calibration_file(change, message, rows, tmp_path):
    path = tmp_path / "c.json"
    found = calibrate("length", Length(), read_rated(str(rows)))
    path.write_text(json.dumps(json.loads(found.to_json()) | change))
    with pytest.raises(BadInput, match=message):
        read_calibration(path)
    with pytest.raises(BadInput, match="cannot read the calibration"):
        read_calibration(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("count", "make", "message"),
    [
        (40, lambda i: {"text": "x", "toxicity": i % 2}, "needs 100 or more"),
        (120, lambda i: {"text": "x", "toxicity": 0.1}, "one side"),
        (120, lambda i: {"text": "x", "insult": i % 2}, "rates none of the labels"),
        (120, lambda i: {"text": "x", "toxicity": None}, "rates none of the labels"),
        (1, lambda i: {"text": "x", "toxicity": 1.5}, r"rows.jsonl:1: a rating is a number in \[0, 1\]"),
        (1, lambda i: {"text": "x", "toxicity": "high"}, "a rating is a number"),
        (1, lambda i: {"comment": "x"}, "needs a text and a score"),
        (1, lambda i: {"text": 3, "toxicity": 1}, "needs a text and a score"),
    ],
)
def test_data_that_nothing_can_be_fitted_to(count, make, message, write_rows):
    path = write_rows([make(number) for number in range(count)])
    with pytest.raises(BadInput, match=message):
        calibrate("length", Length(), read_rated(str(path)))


def test_unrated_texts_are_counted(write_rows):
    rows = [{"text": "x" * (i % 90), "toxicity": None if i < 7 else i % 2} for i in range(150)]
    found = calibrate("length", Length(), read_rated(str(write_rows(rows))))
    assert found.data["texts"]["toxicity"] == {"rated": 143, "unrated": 7}


def test_the_command_and_the_name(write_rows, tmp_path, capsys):
    """`safety calibrate DATA OUT`, then scorer=calibrated:OUT: what was 0.3 and said to be toxic is so now."""
    words = ["you stupid {}", "you idiot {}", "a fine {}", "the {} is green", "what a nice {}", "damn {}"]
    nouns = ["cat", "tree", "house", "river", "road", "song", "boat", "stone", "lamp", "door", "chair", "cloud"]
    lexical = LexicalScorer()
    texts = [f"{word.format(noun)}{'!' * k}" for word in words for noun in nouns for k in range(2)]
    raw = lexical.score(texts)["toxicity"]
    rows = [{"text": text, "toxicity": float(np.sqrt(score))} for text, score in zip(texts, raw, strict=True)]
    out = tmp_path / "new" / "c.json"
    assert cli.main(["safety", "calibrate", str(write_rows(rows)), str(out)]) == 0
    assert "toxicity: 144 texts of rows.jsonl" in capsys.readouterr().out
    scorer = open_scorer(f"calibrated:{out}")
    assert scorer.identity.name == "calibrated lexical" and "rows.jsonl" in scorer.identity.version
    np.testing.assert_allclose(scorer.score(texts)["toxicity"], np.sqrt(raw), atol=0.05)
    assert isinstance(read_calibration(out), Calibration)
    assert cli.main(["safety", "calibrate", str(out), str(out)]) == 2
    assert cli.main(["safety", "calibrate", str(tmp_path / "rows.jsonl"), "a.json", f"scorer=calibrated:{out}"]) == 2
    assert "calibrated already" in capsys.readouterr().err
