"""What the n-gram comparison counts: every token once, bytes of what is said, rows resampled together."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.language_model import LENGTH, Scored, blank, compare, read, share
from training.dataset import Row


def row(*said):
    messages = [{"role": "user", "content": text} for text in said]
    return Row({"messages": messages, "source": "chitchat"}, "here:1", Path())


@pytest.fixture
def model(tokenizer, tiny_config):
    return SimpleNamespace(tokenizer=tokenizer, config=tiny_config)


@pytest.mark.parametrize("words", [1, 40, 300])
def test_overlapping_pieces_score_every_token_once(model, words):
    rows = [row("ä", "xyz" * words), row("cat")]
    cut, overlapping = read(rows, model), read(rows, model, overlap=1)
    first = overlapping.examples[: len(overlapping.examples) - 1]
    scored = np.concatenate([piece.tokens[1:] for piece in first])
    whole = np.concatenate([piece.tokens for piece in cut.examples[:-1]])
    np.testing.assert_array_equal(scored, whole[1:])
    assert all(len(piece) <= LENGTH for piece in first)
    later = len(cut.examples) - len(rows)
    assert overlapping.size() == {"rows": 2, "tokens": cut.size()["tokens"] + later, "bytes": 2 + 3 * words + 3}


def test_blank_pictures_keep_their_places(model):
    content = [{"type": "image", "image": "nowhere.png"}, {"type": "text", "text": "cat"}]
    pictured = Row({"messages": [{"role": "user", "content": content}], "source": "easy-vqa"}, "here:1", Path())
    (example,) = read([blank(pictured)], model).examples
    assert (example.tokens == model.tokenizer.control("<image_soft_token>")).sum() == model.config.vision.soft_tokens
    assert not np.any(example.media.images)


def test_bits_are_divided_by_bytes_of_the_chosen_rows():
    bits = {"shipped": np.array([10.0, 30, 99]), "other": np.array([14.0, 36, 0])}
    found = compare(Scored(np.array([10, 10, 1]), np.array([5.0, 5, 1]), bits), np.array([True, True, False]))
    assert (found["rows"], found["tokens"], found["bytes"]) == (2, 10, 20)
    assert found["models"]["shipped"]["bits_per_byte"] == 2
    assert found["models"]["shipped"]["nats_per_token"] == pytest.approx(4 * np.log(2))
    assert found["models"]["other"]["above_shipped"] == 0.5
    # Of two rows, 0.4 and 0.6 bits a byte worse, a resample can hold either twice.
    assert found["models"]["other"]["interval"] == pytest.approx([0.4, 0.6])


def test_the_share_is_of_questions_and_the_interval_of_pictures():
    found = share([True, True, True, False], np.array([0, 0, 0, 1]))
    assert found["exact_match"] == 0.75
    assert found["interval"] == [0.0, 1.0]
