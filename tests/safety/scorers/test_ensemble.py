"""Several scorers as one, and the names of scorers."""

import numpy as np
import pytest

from safety.scorer import ScorerIdentity
from safety.scorers import open_scorer, understood
from safety.scorers.ensemble import EnsembleScorer
from safety.scorers.lexical import LexicalScorer
from training.errors import BadInput, GateInconclusive


class Fixed:
    """Gives the same scores to every text."""

    def __init__(self, name, **values):
        self.identity = ScorerIdentity(name, "1", "sha256:" + name * 64)
        self.labels, self.values = tuple(values), values

    def score(self, texts):
        return {label: np.full(len(texts), value, np.float32) for label, value in self.values.items()}


def test_highest_or_mean_of_the_labels_that_all_have():
    members = [Fixed("a", toxicity=0.2, threat=0.5, insult=0.9), Fixed("b", threat=0.1, toxicity=0.6)]
    highest, mean = (EnsembleScorer(members, rule) for rule in ("max", "mean"))
    assert highest.labels == mean.labels == ("toxicity", "threat")
    assert highest.score(["x", "y"])["toxicity"].tolist() == [np.float32(0.6)] * 2
    assert highest.score(["x"])["threat"].tolist() == [0.5]
    np.testing.assert_allclose(mean.score(["x"])["toxicity"], 0.4)
    assert mean.score(["x"])["threat"].dtype == np.float32


def test_identity_has_the_rule_and_every_member():
    a, b, c = Fixed("a", toxicity=0.1), Fixed("b", toxicity=0.1), Fixed("c", toxicity=0.1)
    made = [EnsembleScorer(members, rule) for members, rule in (([a, b], "max"), ([a, b], "mean"), ([a, c], "max"))]
    assert len({one.identity for one in made}) == len({one.identity.digest for one in made}) == 3
    assert made[0].identity.name == "max of a and b"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.5])
def test_no_member_hides_behind_another(value):
    """The other's score would do for a maximum; it is not taken."""
    with pytest.raises(GateInconclusive):
        EnsembleScorer([Fixed("a", toxicity=0.9), Fixed("b", toxicity=value)], "max").score(["x"])


@pytest.mark.parametrize(
    ("members", "rule", "message"),
    [
        ([Fixed("a", toxicity=0.1)], "max", "two or more"),
        ([Fixed("a", toxicity=0.1), Fixed("a", toxicity=0.1)], "max", "two or more different"),
        ([Fixed("a", toxicity=0.1), Fixed("b", threat=0.1)], "mean", "no label in common"),
        ([Fixed("a", toxicity=0.1), Fixed("b", toxicity=0.1)], "median", "max or mean"),
    ],
)
def test_what_is_no_ensemble(members, rule, message):
    with pytest.raises(BadInput, match=message):
        EnsembleScorer(members, rule)


def test_names_are_understood_without_opening():
    """Nothing of these exists here, and only their form is looked at."""
    for name in (
        "lexical", "calibrated:c.json", "detoxify", "detoxify:unbiased", "detoxify:x.ckpt", "detoxify:some/folder",
        "https://example.org/v1#rate=3", "http://localhost:1/", "max:lexical+detoxify:folder",
        "mean:calibrated:c.json+https://example.org/",
    ):  # fmt: skip
        understood(name)
    assert isinstance(open_scorer("lexical"), LexicalScorer)


@pytest.mark.parametrize(
    "name", ["", "nonsense", "lexical:", "lexical:a", "calibrated", "calibrated:", "detoxify:", "http:host", "max:",
             "max:lexical+nonsense", "ensemble:lexical+detoxify", "mean:lexical+"],
)  # fmt: skip
def test_unknown_names(name):
    with pytest.raises(BadInput, match="scorer is lexical, calibrated"):
        understood(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("calibrated:none.json", "cannot read the calibration none.json"),
        ("detoxify:none.ckpt", "none.ckpt, which is no file"),
        ("detoxify:none", "none is no folder of a converted classifier"),
        ("max:lexical+lexical", "two or more different"),
    ],
)
def test_what_is_not_there(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message):
        open_scorer(name)
