"""Prompts end in an open assistant turn, and a row that is none is named."""

import pytest
from tiny_world import as_rows, reply, turn

from base_model.tokenizer import MODEL
from ppo.prompts import prompt_examples
from training.errors import BadInput


def test_a_string_is_a_users_turn_and_all_end_open(tiny_model, picture):
    user = {"role": "user", "content": "hello"}
    rows = as_rows(
        [{"prompt": "hello"}, {"prompt": [user]}, {"prompt": [user, reply("fine"), turn("and", [picture(1)])]}]
    )
    one, same, longer = prompt_examples(rows, tiny_model, max_length=96)
    assert one.tokens.tolist() == same.tokens.tolist() and len(longer.media.images) == 1
    for example in (one, longer):
        assert example.tokens[-1] == tiny_model.tokenizer.control(MODEL)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"text": "hello"}, "needs a `prompt`; this one has text"),
        ({"prompt": "the cat " * 60}, r"does not fit in max_prompt_length \(96\)"),
        ({"prompt": [3]}, "list of objects"),
        ({"prompt": [turn("look", ["none.png"])]}, "does not exist"),
        ({"prompt": "what is this", "audio": {"bytes": b"RIFF"}}, "has `audio` beside its messages"),
    ],
)
def test_a_bad_row_is_named_by_its_place(tiny_model, bad, reason):
    rows = as_rows([{"prompt": "hello"}, bad])
    with pytest.raises(BadInput, match=rf"^rows:2: .*{reason}"):
        prompt_examples(rows, tiny_model, max_length=96)
    assert len(prompt_examples(rows, tiny_model, max_length=96, on_bad_row="skip")) == 1
