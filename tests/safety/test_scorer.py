"""The real lexical scorer, the detoxify wrapper on a stand-in package, and the check that fails closed."""

import importlib.metadata
import sys
import types

import numpy as np
import pytest

from safety.scorer import DetoxifyScorer, LexicalScorer, Scorer, ScorerIdentity, check_scores
from training.errors import BadInput, GateInconclusive


@pytest.fixture(scope="module")
def lexical():
    """The embedded scorer."""
    return LexicalScorer()


def test_lexical_scores_real_sentences(lexical):
    """Known toxic sentences above known benign ones; empty texts are scored, not dropped."""
    texts = ["you are a stupid idiot", "I hate you, you piece of trash", "have a nice day", "the cat sleeps", "", ""]
    scores = check_scores(lexical.score(texts), lexical.labels, len(texts))["toxicity"]
    assert scores.dtype == np.float32
    assert scores[:2].min() > 0.9 > 0.2 > scores[2:].max()
    assert scores[4] == scores[5]
    np.testing.assert_array_equal(scores, lexical.score(texts)["toxicity"])
    assert lexical.score([])["toxicity"].shape == (0,)


def test_lexical_identity_pins_the_model_files(lexical):
    """Called "lexical", with versions and a digest that does not change from one to the next."""
    assert isinstance(lexical, Scorer)
    assert lexical.identity == LexicalScorer().identity
    assert lexical.identity.name == "lexical"
    assert "alt-profanity-check" in lexical.identity.version
    assert lexical.identity.digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "promised"),
        ({"toxicity": [0.1, 0.2], "threat": [0, 0]}, "promised"),
        ({"toxicity": [0.1]}, "given 2 texts"),
        ({"toxicity": [[0.1], [0.2]]}, "given 2 texts"),
        ({"toxicity": [0.1, np.nan]}, "not finite"),
        ({"toxicity": [0.1, np.inf]}, "not finite"),
        ({"toxicity": [0.1, 1.001]}, "lie in"),
        ({"toxicity": [-1e-9, 0.5]}, "lie in"),
        ({"toxicity": [0.1, None]}, "finite|numbers"),
        ({"toxicity": [0.1, "high"]}, "numbers"),
    ],
)
def test_bad_scores_are_inconclusive(scores, message):
    """Every way in which a scorer can leave something out or make something up."""
    with pytest.raises(GateInconclusive, match=message):
        check_scores(scores, ("toxicity",), 2)


def test_detoxify_missing_or_misdirected(monkeypatch, tmp_path):
    """Without the package, or pointed at a file that does not exist, the message says what to do."""
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(BadInput, match="pip install detoxify"):
        DetoxifyScorer()
    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=None))
    with pytest.raises(BadInput, match="does not exist"):
        DetoxifyScorer(checkpoint=tmp_path / "no.ckpt")


class _Tensor(np.ndarray):
    def cpu(self):
        return self

    def numpy(self):
        return np.asarray(self)


class _Detoxify:
    """Shaped like detoxify 0.5: class_names, model.state_dict(), predict(list) -> lists."""

    class_names = ["toxicity", "threat"]

    def __init__(self, model_type, *, checkpoint, huggingface_config_path, device):
        self.weight = float(len(checkpoint or ""))
        self.model = types.SimpleNamespace(state_dict=lambda: {"w": np.full(3, self.weight).view(_Tensor)})
        self.batches = []

    def predict(self, texts):
        self.batches.append(len(texts))
        return {"toxicity": [0.25] * len(texts), "threat": [0.5] * len(texts)}


def test_detoxify_batches_and_identity(monkeypatch, tmp_path):
    """All texts are scored over several batches, and other weights give another identity."""
    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=_Detoxify))
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.5.4")
    scorer = DetoxifyScorer(batch_size=2)
    scores = check_scores(scorer.score(["a", "", "c", "d", "e"]), scorer.labels, 5)
    assert scorer._classifier.batches == [2, 2, 1]
    assert scores["threat"].tolist() == [0.5] * 5
    assert scorer.identity[:2] == ("detoxify-original", "detoxify 0.5.4")
    (tmp_path / "other.ckpt").touch()
    other = DetoxifyScorer(checkpoint=tmp_path / "other.ckpt")
    assert isinstance(other.identity, ScorerIdentity) and other.identity != scorer.identity
