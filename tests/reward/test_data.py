"""Preference rows: their forms, their margins, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from tiny_world import as_rows, reply, turn

from base_model import interleave
from base_model.images import load_image
from reward.data import parse_transcript, preference_pairs
from training.dataset import Row
from training.errors import BadInput

CHOSEN = "\n\nHuman: hello\n\nAssistant: hello how are you\n\nHuman: fine: thanks\n\nAssistant: the cat sat on a mat"
REJECTED = CHOSEN[: CHOSEN.rindex("the")] + "no"


def test_transcripts_become_messages():
    assert parse_transcript(CHOSEN) == [
        {"role": "user", "content": "hello"}, reply("hello how are you"), {"role": "user", "content": "fine: thanks"},
        reply("the cat sat on a mat"),
    ]  # fmt: skip
    assert parse_transcript("\n\nAssistant:\n\nHuman: a\nHuman: b")[1]["content"] == "a\nHuman: b"
    for text in ("hello", "Human: hello", "noise\n\nHuman: hello", ""):
        with pytest.raises(BadInput, match="a transcript starts with"):
            parse_transcript(text)


def test_the_same_pair_in_every_form(tiny_model):
    history = [
        {"role": "user", "content": "hello"},
        reply("hello how are you"),
        {"role": "user", "content": "fine: thanks"},
    ]
    good, bad = "the cat sat on a mat", "no"
    forms = [
        {"chosen": CHOSEN, "rejected": REJECTED},
        {"prompt": history, "chosen": good, "rejected": bad},
        {"prompt": history, "chosen": [reply(good)], "rejected": [reply(bad)]},
        {"chosen": [*history, reply(good)], "rejected": [*history, reply(bad)]},
    ]
    pairs = preference_pairs(as_rows(forms), tiny_model, max_length=200)
    tokenizer = tiny_model.tokenizer
    for pair in pairs:
        for side, same, text in ((pair.chosen, pairs[0].chosen, good), (pair.rejected, pairs[0].rejected, bad)):
            assert side.tokens.tolist() == same.tokens.tolist()
            assert side.tokens[-1] == tokenizer.end_of_turn, "a score is read at the end of the reply"
            # Lengths of replies are counted by this mask: earlier turns are not part of the reply.
            assert side.tokens[side.learn].tolist() == [*tokenizer.encode(text), tokenizer.end_of_turn]
    assert {(pair.modality, pair.source, pair.margin) for pair in pairs} == {("text", "unnamed", 0.0)}


def test_margin_source_and_modality(tiny_model, picture):
    prompt = [turn("what colour", [picture(1)])]
    row = {"prompt": prompt, "chosen": "red", "rejected": "blue", "margin": 2, "source": "vqa"}
    pair = preference_pairs(as_rows([row]), tiny_model, max_length=96)[0]
    assert (pair.margin, pair.source, pair.modality, len(pair.rejected.media.images)) == (2.0, "vqa", "image", 1)
    pair = preference_pairs(as_rows([row | {"modality": "text"}]), tiny_model, max_length=96)[0]
    assert pair.modality == "text", "the picture need not be seen to tell them apart"


@pytest.mark.parametrize("form", ["array", "file"])
def test_a_picture_of_the_prompt_is_read_once(tiny_model, picture, tmp_path, monkeypatch, form):
    Image.fromarray(picture(1)).save(tmp_path / "1.png")
    asked, read = turn("what colour", [picture(1) if form == "array" else "1.png"]), []
    monkeypatch.setattr(interleave, "load_image", lambda *given: read.append(given) or load_image(*given))
    apart = {"chosen": [asked, reply("red")], "rejected": [turn("what colour", ["1.png"]), reply("blue")]}
    rows = [{"prompt": [asked], "chosen": "red", "rejected": "blue"}, *([apart] if form == "file" else [])]
    pairs = preference_pairs([Row(row, "rows:1", tmp_path) for row in rows], tiny_model, max_length=96)
    assert len(read) == len(rows)
    for pair in pairs:
        assert pair.chosen.media.images[0] is pair.rejected.media.images[0]
        np.testing.assert_array_equal(pair.chosen.media.images[0], picture(1))


PAIR = {"prompt": "hello", "chosen": "fine", "rejected": "no"}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"prompt": "hello", "chosen": "fine"}, "needs `rejected`; this one has prompt, chosen"),
        ({**PAIR, "chosen": ""}, "needs `chosen`"),
        ({**PAIR, "margin": -1}, "a margin is a number from 0 to 1e6, not -1"),
        ({**PAIR, "margin": float("nan")}, "a margin is"),
        ({**PAIR, "margin": "big"}, "a margin is"),
        ({**PAIR, "chosen": "the cat " * 40}, "does not fit in max_length"),
        ({"chosen": "fine", "rejected": "no"}, "a transcript starts with"),
        (
            {"chosen": [{"role": "user", "content": "a"}], "rejected": [reply("b")]},
            "a reply ends with a message of the assistant",
        ),
        ({**PAIR, "chosen": 3}, "a reply is a string or a list of messages, not 3"),
        ({**PAIR, "prompt": ["a", 3]}, "a prompt is a string or a list of messages"),
    ],
)
def test_a_bad_pair_is_named_by_its_place(tiny_model, bad, reason):
    rows = as_rows([PAIR, bad])
    with pytest.raises(BadInput, match=rf"^rows:2: .*{reason}"):
        preference_pairs(rows, tiny_model, max_length=96)
    assert len(preference_pairs(rows, tiny_model, max_length=96, on_bad_row="skip")) == 1


def test_media_in_a_column_of_their_own_are_refused_and_not_left_out(tiny_model, picture):
    row = {"prompt": "what colour", "chosen": "red", "rejected": "blue", "images": [picture(1)]}
    with pytest.raises(BadInput, match="rows:1: a row has `images` beside its messages"):
        preference_pairs(as_rows([row]), tiny_model, max_length=96)
    kept = row | {"prompt": [turn("what colour", [picture(1)])]}
    assert preference_pairs(as_rows([kept]), tiny_model, max_length=96)[0].modality == "image"
