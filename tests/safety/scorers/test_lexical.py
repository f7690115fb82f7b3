"""The real lexical scorer."""

import numpy as np
import pytest

from safety.scorer import Scorer, check_scores
from safety.scorers.lexical import LexicalScorer


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
