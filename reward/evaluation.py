"""What is known of a reward model: accuracy, margins, calibration, length correlation, by source and by modality."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from base_model.checkpoint import LanguageModel
from base_model.media import blanked
from reward import calibration, metrics
from reward.data import Pair
from reward.model import score


def evaluate_pairs(
    model: LanguageModel, pairs: Sequence[Pair], *, seed: int = 0, dtype: DTypeLike = jnp.float32
) -> dict[str, Any]:
    """Figures on held-out pairs as a JSON-ready dict.

    Image-grounded pairs are scored a second time with every picture blank: a model that looks falls to chance there.

    Args:
        model: the reward model.
        pairs: held-out ones.
        seed: of the order in which pairs are shown to the measures of calibration.
        dtype: of the matrix products; a trainer measures with the one that it trains with.
    """
    examples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores = score(model, examples, dtype=dtype)
    chosen, rejected = scores[: len(pairs)], scores[len(pairs) :]
    lengths = [int(example.learn.sum()) for example in examples]
    oriented = calibration.randomise_orientation(chosen, rejected, seed=seed)
    report = {
        "pairs": len(pairs),
        "accuracy": metrics.accuracy(chosen, rejected)._asdict(),
        "by_source": _groups(chosen, rejected, [pair.source for pair in pairs]),
        "by_modality": _groups(chosen, rejected, [pair.modality for pair in pairs]),
        "margins": _plain(metrics.margins(chosen, rejected)),
        "calibration": _plain(calibration.calibration(oriented.delta, oriented.label)),
        "length_correlation": metrics.length_correlation(scores, lengths)._asdict(),
    }
    pictured = [pair for pair in pairs if pair.modality == "image"]
    if pictured:
        report["picture_hidden"] = metrics.accuracy(*_blind_scores(model, pictured, dtype))._asdict()
    return report


def _blind_scores(
    model: LanguageModel, pairs: Sequence[Pair], dtype: DTypeLike
) -> tuple[np.ndarray, np.ndarray]:
    blind = lambda example: replace(example, media=blanked(example.media))  # noqa: E731
    texts = [blind(pair.chosen) for pair in pairs] + [blind(pair.rejected) for pair in pairs]
    scores = score(model, texts, dtype=dtype)
    return scores[: len(pairs)], scores[len(pairs) :]


def _groups(chosen: np.ndarray, rejected: np.ndarray, names: list[str]) -> dict[str, Any]:
    return {name: interval._asdict() for name, interval in metrics.accuracy_by_group(chosen, rejected, names).items()}


def _plain(value: Any) -> Any:
    """Named tuples and arrays as what JSON knows; a bin without pairs has no frequency and stands as null."""
    if hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, np.ndarray):
        return [None if isinstance(item, float) and np.isnan(item) else item for item in value.tolist()]
    return value
