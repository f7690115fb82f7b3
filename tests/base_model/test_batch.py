import numpy as np
import pytest

from base_model.batch import pack, pad_left


@pytest.fixture(scope="module")
def examples(make_example):
    return [
        make_example("what colour", "red", pictures=[0]),
        make_example("hi", "no"),
        make_example("?", "", pictures=[1, 2]),
    ]


def test_examples_of_a_row_stand_one_after_another(examples):
    first, second, third = examples
    length = len(first) + len(third) + 3
    batch = pack([[first, third], [second], []], length)
    assert batch.tokens.shape == batch.segments.shape == batch.positions.shape == batch.learn.shape == (3, length)
    assert batch.tokens[0].tolist() == [*first.tokens, *third.tokens, 0, 0, 0]
    assert batch.segments[0].tolist() == [1] * len(first) + [2] * len(third) + [0] * 3
    assert batch.positions[0].tolist() == [*range(len(first)), *range(len(third)), 0, 0, 0]
    assert batch.learn[0].tolist() == [*first.learn, *third.learn, False, False, False]
    assert not batch.segments[2].any() and not batch.learn[2].any()
    assert batch.media.images.shape == (3, 3, 16, 16, 3)
    np.testing.assert_array_equal(batch.media.images[0], np.stack(first.media.images + third.media.images))
    assert not batch.media.images[1:].any()


def test_nobody_learns_the_first_token_of_an_example(examples):
    from dataclasses import replace

    all_learned = replace(examples[1], learn=np.ones(len(examples[1]), bool))
    batch = pack([[all_learned, all_learned]], 40)
    assert np.flatnonzero(~batch.learn[0, : 2 * len(all_learned)]).tolist() == [0, len(all_learned)]


def test_prompts_end_at_the_right_edge(examples):
    batch = pad_left(examples, 40)
    right = pack([[example] for example in examples], 40)
    for row, example in enumerate(examples):
        for left, padded in zip(batch[:4], right[:4], strict=True):
            assert not left[row, : 40 - len(example)].any()
            np.testing.assert_array_equal(left[row, 40 - len(example) :], padded[row, : len(example)])
    np.testing.assert_array_equal(batch.media.images, right.media.images)
