"""Lexical toxicity: a linear model over words. What that misses is measured in safety/data/audit_lexical.json."""

import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from safety.scorer import ScorerIdentity
from training.digest import file_digest, json_digest
from training.errors import BadInput


class LexicalScorer:
    """The linear model over words of alt-profanity-check. Small, fast, offline; the default.

    Its one label is "toxicity". scikit-learn and the model are loaded at the first `score`, not at import.
    """

    labels = ("toxicity",)

    def __init__(self):
        """Find the installed package and take the digest of its model files.

        Raises:
            BadInput: alt-profanity-check is not installed.
        """
        spec = importlib.util.find_spec("profanity_check")
        if spec is None or spec.origin is None:
            raise BadInput("the lexical scorer needs the package alt-profanity-check: pip install alt-profanity-check")
        files = [Path(spec.origin).parent / "data" / name for name in ("model.joblib", "vectorizer.joblib")]
        version = ", ".join(
            f"{package} {importlib.metadata.version(package)}" for package in ("alt-profanity-check", "scikit-learn")
        )
        self.identity = ScorerIdentity("lexical", version, json_digest([file_digest(file) for file in files]))

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return {"toxicity": float32[N]}; see `Scorer.score`."""
        from profanity_check import predict_prob

        if not texts:
            return {"toxicity": np.zeros(0, np.float32)}
        return {"toxicity": np.asarray(predict_prob(list(texts)), np.float32)}
