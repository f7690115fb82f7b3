import numpy as np
import pytest

from base_model import long_context
from base_model.interleave import Example
from base_model.likelihood import HeldOut
from base_model.long_context import lines_and_question, loss_by_position, retrieval
from training.errors import BadInput


def pose(question, answer):
    """A token a character."""
    tokens = np.frombuffer((question + answer).encode(), np.uint8).astype(np.int32)
    return Example(tokens=tokens, learn=np.arange(len(tokens)) >= len(question))


@pytest.mark.parametrize(("depth", "line"), [(0.0, 0), (0.5, 10), (1.0, 20)])
def test_the_question_is_for_the_line_at_the_depth(depth, line):
    text, answer = lines_and_question(np.random.default_rng(0), 21, depth)
    *lines, question = text.splitlines()
    key, value = lines[line].split(": ")
    assert len(lines) == len({one.split(": ")[0] for one in lines}) == 21
    assert question == f"Which value belongs to {key}?" and answer == value
    assert [len(one) for one in lines] == [len("12345: 12345")] * 21


def test_contexts_fill_the_length_and_what_is_found_is_counted(tiny_model, monkeypatch):
    asked = []

    def held_out(structure, params, examples, *, batch_size):
        asked.append(examples)
        return HeldOut(0.0, 0.75 if len(asked) == 1 else 0.0, np.zeros(len(examples)))

    monkeypatch.setattr(long_context, "held_out", held_out)
    found = retrieval(tiny_model, pose, length=96, depths=(0.0, 1.0), rows=4)
    assert [(one.depth, one.found, one.rows) for one in found] == [(0.0, 3, 4), (1.0, 0, 4)]
    for one, examples in zip(found, asked, strict=True):
        assert one.length == max(map(len, examples)) and 96 - 2 * len("12345: 12345\n") < one.length <= 96
        assert len({example.tokens.tobytes() for example in examples}) == 4
        assert all(example.learn.sum() == 5 for example in examples)


@pytest.mark.parametrize(("length", "words"), [(97, r"model's context \(96\)"), (50, "two lines")])
def test_lengths_that_cannot_be_are_refused(tiny_model, length, words):
    with pytest.raises(BadInput, match=words):
        retrieval(tiny_model, pose, length=length, depths=(0.5,), rows=1)


def test_the_loss_is_averaged_by_position(tiny_model, monkeypatch):
    # A token's loss is its position, twice that in the second row; texts end at different places.
    times = np.array([[1], [2]])
    monkeypatch.setattr(long_context, "_nll", lambda structure, params, batch: times * batch.positions)
    monkeypatch.setattr(long_context, "TOKENS", 64)
    texts = [Example(tokens=np.ones(n, np.int32), learn=np.zeros(n, bool)) for n in (40, 20)]
    parts = loss_by_position(tiny_model, texts, length=32, parts=4)
    assert [part[:2] for part in parts] == [(0, 8), (8, 16), (16, 24), (24, 32)]
    assert [part.tokens for part in parts] == [14, 16, 12, 8]
    expected = [1.5 * np.arange(1, 8).mean(), 1.5 * np.arange(8, 16).mean(),
                (np.arange(16, 24).sum() + 2 * np.arange(16, 20).sum()) / 12, np.arange(24, 32).mean()]  # fmt: skip
    np.testing.assert_allclose([part.loss for part in parts], expected)
    assert len(loss_by_position(tiny_model, texts[1:], length=32, parts=4)) == 3  # a part without a token is left out
