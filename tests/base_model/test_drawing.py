"""Models whose vocabulary has codes of pictures: what their rows, replies and folders are."""

from dataclasses import replace
from pathlib import Path

import drawings
import jax
import numpy as np
import pytest
from tiny_world import one_layer, reply, turn

from base_model import checkpoint
from base_model.batch import pad_left
from base_model.chat import messages_to_segments
from base_model.drawing import draw_pictures
from base_model.generate import generate, reply_keys
from base_model.image_codes import ImageCodes
from base_model.interleave import interleave
from base_model.sampling import SamplingConfig, sample
from training.errors import BadInput

LENGTH = 44


@pytest.fixture(scope="module")
def model(tiny_model, image_tokenizer):
    return drawings.drawing(one_layer(tiny_model), image_tokenizer)


def example(model, messages, **options):
    segments = messages_to_segments(messages, model.tokenizer, folder=Path(), **options)
    return interleave(segments, model.tokenizer, model.config)


def test_codes_stand_behind_the_text(model, tokenizer):
    codes = model.tokenizer.image_codes
    assert codes == ImageCodes(
        tokenizer.control("<start_of_image>"), tokenizer.control("<end_of_image>"), tokenizer.vocab_size, 36, 16
    )
    assert model.tokenizer.vocab_size == model.config.vocab_size == tokenizer.vocab_size + 36
    assert set(tokenizer.never_sampled) - set(model.tokenizer.never_sampled) == {codes.begin, codes.end}
    assert model.fingerprint != replace(model, tokenizer=tokenizer).fingerprint
    assert tokenizer.image_codes is None


def test_what_the_assistant_shows_is_codes_to_be_learned(model, image_tokenizer):
    seen, said = drawings.PICTURES["blue"], drawings.PICTURES["the mat"]
    content = [{"type": "text", "text": "yes"}, {"type": "image", "image": said}]
    made = example(model, [turn("the mat", [seen]), reply(content)])
    begin, end, first, *_ = model.tokenizer.image_codes
    wanted = [begin, *(first + code for code in image_tokenizer.encode(said)), end]
    assert made.tokens[-len(wanted) - 2 : -2].tolist() == wanted
    assert made.learn[-len(wanted) - 2 : -1].all() and not made.learn[-1]
    assert len(made.media.images) == 1, "the user's picture is seen"
    assert not made.learn[: list(made.tokens).index(end)].any()
    assert model.tokenizer.decode(made.tokens.tolist()).endswith("yes")
    pictures = model.tokenizer.pictures(made.tokens.tolist())
    assert len(pictures) == 1 and drawings.nearest(pictures[0]) == "the mat"
    assert model.tokenizer.pictures(wanted[:-2] + wanted[-1:]) == [], "a picture with a code too few is none"


def test_a_model_without_codes_sees_what_the_assistant_shows(tiny_model, picture):
    made = example(tiny_model, [turn("hello"), reply([{"type": "image", "image": picture()}])])
    assert len(made.media.images) == 1


def test_a_folder_holds_the_image_tokenizer_too(model, tmp_path):
    checkpoint.save(model, tmp_path / "model")
    loaded = checkpoint.load(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint and loaded.tokenizer.image_codes == model.tokenizer.image_codes
    for one, other in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(model.params), strict=True):
        np.testing.assert_array_equal(one, other)
    other = replace(model.tokenizer.images, params=jax.tree.map(lambda leaf: leaf * 2, model.tokenizer.images.params))
    images = tmp_path / "model" / checkpoint.IMAGE_TOKENIZER
    images.rename(tmp_path / "before")
    other.save(images)
    with pytest.raises(BadInput, match="not the one its parameters were trained with"):
        checkpoint.load(tmp_path / "model")


@pytest.fixture(scope="module")
def replies(model):
    """Forty at temperature 1 with room for two pictures at most, as lists of ids up to the end of turn."""
    prompts = [example(model, [turn(name)], ending="reply") for name in drawings.PICTURES]
    keys = reply_keys(jax.random.key(3), np.arange(4), 10)
    config = SamplingConfig(max_new_tokens=LENGTH)
    samples = sample(
        checkpoint.structure_of(model.config, model.tokenizer), model.params, pad_left(prompts, 24), keys,
        vocabulary=drawings.few_words(model), config=config, copies=10,
    )  # fmt: skip
    tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
    return [row[kept].tolist() for row, kept in zip(tokens, mask, strict=True)]


def test_replies_have_whole_pictures_only(replies, model):
    begin, end, first, count, length = model.tokenizer.image_codes
    is_code = lambda token: first <= token < first + count  # noqa: E731
    drawn = 0
    for ids in replies:
        while begin in ids:
            start = ids.index(begin)
            assert not any(is_code(token) or token == end for token in ids[:start])
            assert all(map(is_code, ids[start + 1 : start + 1 + length])) and ids[start + 1 + length] == end
            ids, drawn = ids[start + length + 2 :], drawn + 1
        assert not any(is_code(token) or token == end for token in ids)
    assert drawn > 10
    assert any(begin not in ids for ids in replies)


def test_replies_without_room_for_a_picture_have_none(model):
    prompt = example(model, [turn("blue")], ending="reply")
    config = SamplingConfig(max_new_tokens=model.tokenizer.image_codes.length + 2)
    assert all(isinstance(text, str) for text in generate(model, [prompt], config, copies=8)[0])


def test_asked_to_draw_it_draws(model):
    prompts = [example(model, [turn(name)], ending="reply") for name in ("blue", "red square")]
    pictures = draw_pictures(model, prompts, copies=2, seed=1)
    assert [[picture.shape for picture in of_prompt] for of_prompt in pictures] == [[(16, 16, 3)] * 2] * 2
    assert (pictures[0][0] != pictures[0][1]).any()


def test_a_model_without_codes_does_not_draw(tiny_model):
    prompt = example(tiny_model, [turn("blue")], ending="reply")
    with pytest.raises(BadInput, match="does not draw"):
        draw_pictures(tiny_model, [prompt])
