from pathlib import Path

import numpy as np
import pytest

from base_model.chat import fingerprint, messages_to_segments, parts, reply_messages
from base_model.interleave import digest, interleave, require_fits
from base_model.tokenizer import BOS, EOS, Tokenizer
from training.errors import BadInput

MESSAGES = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "how are you"},
    {"role": "user", "content": "fine"},
    {"role": "assistant", "content": "thanks"},
]


@pytest.fixture
def lay_out(tokenizer, tiny_config):
    def lay_out(messages, **options):
        segments = messages_to_segments(messages, tokenizer, folder=Path(), **options)
        return interleave(segments, tokenizer, tiny_config)

    return lay_out


def turn(tokenizer, role, text):
    return [tokenizer.control(role), *tokenizer.encode(text), tokenizer.end_of_turn]


def test_the_template_id_by_id(tokenizer, lay_out):
    roles = {"system": "<system>", "user": "<user>", "assistant": "<model>"}
    turns = [i for message in MESSAGES for i in turn(tokenizer, roles[message["role"]], message["content"])]
    assert lay_out(MESSAGES).tokens.tolist() == [BOS, *turns, EOS]
    assert lay_out(MESSAGES, ending="turn").tokens.tolist() == [BOS, *turns]
    assert lay_out(MESSAGES, ending="reply").tokens.tolist() == [BOS, *turns, tokenizer.control("<model>")]


@pytest.mark.parametrize("ending", ["document", "turn", "reply"])
def test_only_the_replies_and_their_ends_are_learned(tokenizer, lay_out, ending):
    end = [tokenizer.end_of_turn]
    first, last = tokenizer.encode("how are you") + end, tokenizer.encode("thanks") + end
    example = lay_out(MESSAGES, ending=ending)
    assert example.tokens[example.learn].tolist() == first + last
    example = lay_out(MESSAGES, ending=ending, loss_on="last")
    assert example.tokens[example.learn].tolist() == last


def test_all_is_everything_but_the_beginning_and_places_of_pictures(tokenizer, lay_out, picture):
    content = [{"type": "text", "text": "look"}, {"type": "image", "image": picture()}]
    example = lay_out([{"role": "user", "content": content}], loss_on="all")
    learned = [tokenizer.control("<user>"), *tokenizer.encode("look"), tokenizer.end_of_turn, EOS]
    assert example.tokens[example.learn].tolist() == learned


def test_a_picture_stands_in_brackets_with_a_place_for_each_soft_token(tokenizer, lay_out, picture):
    content = [
        {"type": "image", "image": picture(0)},
        {"type": "text", "text": "or"},
        {"type": "image", "image": np.zeros((9, 20, 3), np.uint8)},
    ]
    example = lay_out([{"role": "user", "content": content}], ending="turn")
    begin, end = tokenizer.control("<start_of_image>"), tokenizer.control("<end_of_image>")
    place = [begin, *[tokenizer.control("<image_soft_token>")] * 4, end]
    start, stop = tokenizer.control("<user>"), tokenizer.end_of_turn
    assert example.tokens.tolist() == [BOS, start, *place, *tokenizer.encode("or"), *place, stop]
    assert [image.shape for image in example.media.images] == [(16, 16, 3)] * 2
    np.testing.assert_array_equal(example.media.images[0], picture(0))


def test_a_medium_without_encoder_is_refused(lay_out):
    with pytest.raises(BadInput, match="no encoder for audio"):
        lay_out([{"role": "user", "content": [{"type": "audio", "audio": b"RIFF"}]}])


def test_a_model_without_eyes_refuses_pictures(tokenizer, tiny_config, picture):
    from dataclasses import replace

    segments = messages_to_segments(
        [{"role": "user", "content": [{"type": "image", "image": picture()}]}], tokenizer, folder=Path()
    )
    with pytest.raises(BadInput, match="no encoder for image"):
        interleave(segments, tokenizer, replace(tiny_config, vision=None))


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "at least one message"),
        ("hello", "list of objects"),
        (["hello"], "list of objects"),
        ([{"role": "robot", "content": "x"}], "not 'robot'"),
        ([{"content": "x"}], "not None"),
        ([{"role": ["user"], "content": "x"}], r"not \['user'\]"),
        ([{"role": "user"}], "not NoneType"),
        ([{"role": "user", "content": ["x"]}], "not list"),
        ([{"role": "user", "content": [{"type": "smell", "smell": "x"}]}], "smell"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "content part"),
        ([{"role": "user", "content": [{"type": "image"}]}], "content part"),
        ([{"role": "user", "content": [{"type": "image", "image": "../x.png"}]}], "leads out of"),
    ],
)
def test_a_bad_row_says_what_is_wrong(lay_out, messages, message):
    with pytest.raises(BadInput, match=message):
        lay_out(messages)


@pytest.mark.parametrize("options", [{"loss_on": "user"}, {"ending": "end"}])
def test_a_misspelt_option_is_refused(lay_out, options):
    with pytest.raises(BadInput, match="chat template"):
        lay_out(MESSAGES, **options)


def test_prompt_and_reply_as_strings_or_messages():
    messages = reply_messages("hello", "hi")
    assert messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
    assert reply_messages(messages[:1], messages[1:]) == messages
    assert parts("hi") == [{"type": "text", "text": "hi"}]


def test_the_fingerprint_follows_the_tokenizer(tokenizer):
    other = Tokenizer.train(["another corpus of a few words"] * 20, vocab_size=288)
    assert fingerprint(tokenizer) == fingerprint(Tokenizer(tokenizer.model))
    assert fingerprint(tokenizer) != fingerprint(other)


def test_a_row_that_does_not_fit_names_the_option(lay_out):
    example = lay_out(MESSAGES)
    assert require_fits(example, len(example), "max_length") is example
    with pytest.raises(BadInput, match=r"does not fit in max_length \(5\)"):
        require_fits(example, 5, "max_length")


def test_the_digest_sees_tokens_losses_pictures_and_order(make_example, lay_out):
    examples = [make_example("what", "red", pictures=[0]), make_example("what", "red", pictures=[1])]
    variants = [
        examples,
        examples[::-1],
        examples[:1],
        [examples[0], make_example("what", "red")],
        [examples[0], make_example("what", "blue", pictures=[1])],
        [lay_out(MESSAGES)],
        [lay_out(MESSAGES, loss_on="last")],
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)
    assert digest(examples) == digest(list(examples))
