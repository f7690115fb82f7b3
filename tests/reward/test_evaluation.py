"""The report on held-out pairs, on scores made by hand."""

import json

import numpy as np
import pytest

from base_model.checkpoint import LanguageModel
from base_model.interleave import Example
from base_model.media import Media
from reward.data import Pair
from reward.evaluation import evaluate_pairs

#         source     modality  chosen rejected  words of chosen and rejected
PAIRS = [("rated", "text", 2.0, 1.0, 4, 2), ("rated", "text", 0.0, 1.0, 2, 2), ("vqa", "image", 3.0, 3.0, 6, 6),
         ("vqa", "image", 5.0, 1.0, 10, 2)]  # fmt: skip


@pytest.fixture
def report(monkeypatch):
    def side(modality, words):
        images = (np.full((2, 2, 3), 9, np.uint8),) if modality == "image" else ()
        return Example(tokens=np.zeros(12, np.int32), learn=np.arange(12) < words, media=Media(images, ()))

    def scores(model, examples, **_):
        half = len(examples) // 2
        shown = PAIRS if half == len(PAIRS) else [pair for pair in PAIRS if pair[1] == "image"]
        if half < len(PAIRS):
            pictures = [image for example in examples for image in example.media.images]
            assert pictures and not any(image.any() for image in pictures)
            return np.array([0.0, 1.0, 0.0, 0.0])
        return np.array([pair[2] for pair in shown] + [pair[3] for pair in shown])

    monkeypatch.setattr("reward.evaluation.score", scores)
    pairs = [
        Pair(chosen=side(kind, good), rejected=side(kind, bad), margin=0.0, source=source, modality=kind)
        for source, kind, _, _, good, bad in PAIRS
    ]
    return evaluate_pairs(object.__new__(LanguageModel), pairs, seed=1)


def test_figures(report):
    assert report["pairs"] == 4
    assert (report["accuracy"]["correct"], report["accuracy"]["count"]) == (2, 4), "a tie is wrong"
    assert report["by_source"]["rated"]["share"] == 0.5 and report["by_modality"]["image"]["share"] == 0.5
    assert report["margins"]["mean"] == pytest.approx(1.0)
    assert report["margins"]["chosen_mean"] == 2.5 and report["margins"]["rejected_mean"] == 1.5
    lead = np.array([1, -1, 0, 4.0])
    assert report["calibration"]["nll"] == pytest.approx(np.log1p(np.exp(-lead)).mean())
    assert report["calibration"]["brier"] == pytest.approx(((1 - 1 / (1 + np.exp(-lead))) ** 2).mean())
    lengths, values = [4, 2, 6, 10, 2, 2, 6, 2], [2, 0, 3, 5, 1, 1, 3, 1]
    assert report["length_correlation"]["pearson"] == pytest.approx(np.corrcoef(lengths, values)[0, 1])
    assert report["picture_hidden"]["share"] == 0.5 and report["picture_hidden"]["count"] == 2


def test_it_is_json_with_empty_bins_as_null(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert None in report["calibration"]["probability"]["observed"]
