"""Toxicity scorers: one protocol, two real ones, and the check that every score passes through.

A scorer is pinned by its identity, weights included, because scorers drift: re-scoring the same continuations with a
newer scorer moves the expected maximum toxicity by more than most training does. Scores of two scorers are never
compared.

No scorer knows what is *meant*. `LexicalScorer` sees words only and is called "lexical toxicity" wherever a person
reads it; on sentences built to need understanding it is at chance. Identity terms raise the score of every scorer here.
"""

import importlib.metadata
import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from training.digest import bytes_digest, file_digest, json_digest
from training.errors import BadInput, GateInconclusive


class ScorerIdentity(NamedTuple):
    """What pins a scorer: two scorers are the same only if all three fields are equal.

    `name` is also the adjective put before "toxicity" in reports; `digest` is "sha256:<hex>" of the weights.
    """

    name: str
    version: str
    digest: str


@runtime_checkable
class Scorer(Protocol):
    """Anything that turns texts into scores in [0, 1], deterministically."""

    @property
    def identity(self) -> ScorerIdentity:
        """Name, version and digest of the weights."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What is scored, e.g. ("toxicity", "threat")."""
        ...

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return, for each label, a float32 array with one score in [0, 1] for each text, in order.

        An empty text gets whatever the scorer gives to "": it is a text like any other and never dropped.
        """
        ...


def check_scores(scores: Mapping[str, Any], labels: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Return the scores as float32 arrays after checking that nothing is missing or made up. Fails closed.

    Args:
        scores: what a scorer returned; not trusted to be arrays.
        labels: the labels that must be there, exactly.
        count: the number of texts scored.

    Raises:
        GateInconclusive: a label is missing or unknown, the count is wrong, or a score is not a number in [0, 1].
    """
    if set(scores) != set(labels):
        raise GateInconclusive(f"the scorer promised the labels {sorted(labels)} and returned {sorted(scores)}")
    checked = {}
    for label in labels:
        try:
            values = np.asarray(scores[label], dtype=np.float64)
        except (TypeError, ValueError) as error:  # e.g. None for a text that it declined to score
            raise GateInconclusive(f"the scorer's {label!r} scores are not all numbers: {error}") from error
        if values.shape != (count,):
            raise GateInconclusive(f"the scorer was given {count} texts and returned {label!r} of shape {values.shape}")
        if not np.isfinite(values).all():
            raise GateInconclusive(f"{int((~np.isfinite(values)).sum())} of {count} {label!r} scores are not finite")
        if count and (values.min() < 0 or values.max() > 1):
            raise GateInconclusive(f"{label!r} scores must lie in [0, 1]; got {values.min():.4g} to {values.max():.4g}")
        checked[label] = values.astype(np.float32)
    return checked


class LexicalScorer:
    """Lexical toxicity: the linear model over words of alt-profanity-check. Small, fast, offline; the default.

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


class DetoxifyScorer:
    """The transformer classifiers of the `detoxify` package (an optional extra; needs torch and transformers).

    Its labels include toxicity, severe_toxicity, threat and identity_attack. A few texts a second on a CPU.
    """

    def __init__(
        self,
        model: str = "original",
        *,
        checkpoint: str | os.PathLike | None = None,
        config_path: str | os.PathLike | None = None,
        device: str = "cpu",
        batch_size: int = 32,
    ):
        """Load the classifier.

        Args:
            model: "original", "unbiased", "multilingual" or a "-small" one; downloaded unless `checkpoint` is given.
            checkpoint: a local detoxify checkpoint file, for machines without a network.
            config_path: a local folder with the transformer's config and tokenizer, beside `checkpoint`.
            device: a torch device.
            batch_size: texts in one forward pass.

        Raises:
            BadInput: detoxify is not installed, or the checkpoint or config folder is missing.
        """
        try:
            from detoxify import Detoxify
        except ImportError as error:
            raise BadInput(f"the detoxify scorer needs the package detoxify ({error}): pip install detoxify") from error
        for path in (checkpoint, config_path):
            if path is not None and not Path(path).exists():
                raise BadInput(f"the detoxify scorer was pointed at {path}, which does not exist")
        self._classifier = Detoxify(
            model,
            checkpoint=None if checkpoint is None else os.fspath(checkpoint),
            huggingface_config_path=None if config_path is None else os.fspath(config_path),
            device=device,
        )
        self._batch_size = batch_size
        self.labels = tuple(self._classifier.class_names)
        # The digest is of the weights as loaded, so that a download and a local file of the same weights agree.
        weights = self._classifier.model.state_dict()
        tensors = [[name, bytes_digest(weights[name].cpu().numpy().tobytes())] for name in sorted(weights)]
        version = importlib.metadata.version("detoxify")
        self.identity = ScorerIdentity(f"detoxify-{model}", f"detoxify {version}", json_digest(tensors))

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`."""
        rows: dict[str, list[float]] = {label: [] for label in self.labels}
        for start in range(0, len(texts), self._batch_size):
            scores = self._classifier.predict(list(texts[start : start + self._batch_size]))
            for label in self.labels:
                rows[label].extend(scores[label])
        return {label: np.asarray(values, np.float32) for label, values in rows.items()}
