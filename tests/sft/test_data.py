"""What of a row is learned, what is cut, and what is refused."""

from pathlib import Path

import pytest
from tiny_world import as_rows, reply, turn

from sft.config import SFTConfig
from sft.data import sft_examples
from training.dataset import read_rows
from training.errors import BadInput


@pytest.fixture
def learned(tiny_model):
    """The ids that are learned of one row."""

    def ids(values, **options):
        example = sft_examples(as_rows([values]), tiny_model, SFTConfig(max_length=96, **options))[0]
        return example.tokens[example.learn].tolist()

    return ids


def test_replies_and_their_ends_are_learned(learned, tokenizer, picture):
    messages = [
        {"role": "system", "content": "the cat"}, turn("hello", [picture(1)]), reply("fine thanks"),
        turn("where"), reply("on a mat"),
    ]  # fmt: skip
    end = tokenizer.end_of_turn
    wanted = [*tokenizer.encode("fine thanks"), end, *tokenizer.encode("on a mat"), end]
    assert learned({"messages": messages}) == wanted


@pytest.mark.parametrize("whole", [False, True])
def test_of_prompt_and_completion_only_the_completion_is_learned(learned, tokenizer, picture, whole):
    prompt = [turn("hello"), reply("fine thanks"), turn("what is this", [picture(2)])]
    completion = [reply("a square")] if whole else "a square"
    wanted = [*tokenizer.encode("a square"), tokenizer.end_of_turn]
    assert learned({"prompt": prompt, "completion": completion}) == wanted
    assert learned({"prompt": "what is this", "completion": completion}) == wanted
    assert learned({"prompt": prompt, "completion": completion}, assistant_only_loss=False) == wanted


def test_every_token_but_pictures_is_learned_on_request(tiny_model, picture):
    rows = as_rows([{"messages": [turn("hello", [picture(1)]), reply("fine")]}])
    example = sft_examples(rows, tiny_model, SFTConfig(max_length=96, assistant_only_loss=False))[0]
    tokenizer = tiny_model.tokenizer
    brackets = {tokenizer.control(f"<{piece}>") for piece in ("start_of_image", "image_soft_token", "end_of_image")}
    assert [t in brackets for t in example.tokens[1:].tolist()] == (~example.learn[1:]).tolist()
    assert not example.learn[0]


def test_long_text_is_cut_and_a_picture_never_is(tiny_model, picture):
    long = "the cat sat on a mat " * 30
    rows = as_rows([{"messages": [turn("hello", [picture(1)]), reply(long)]}])
    for length in range(24, 60, 7):
        example = sft_examples(rows, tiny_model, SFTConfig(max_length=length))[0]
        assert len(example) == length and len(example.media.images) == 1
        soft = tiny_model.tokenizer.control("<image_soft_token>")
        assert (example.tokens == soft).sum() == tiny_model.config.vision.soft_tokens
    rows = as_rows(
        [{"messages": [turn("hello"), reply("fine"), turn(long, []), turn("this", [picture(1)]), reply("a")]}]
    )
    for given, limit in ((64, r"max_length \(64\)"), (500, r"the model's context \(96\)")):
        with pytest.raises(BadInput, match=rf"^rows:1: .* to {limit} would cut a picture, a clip or a sound; raise it"):
            sft_examples(rows, tiny_model, SFTConfig(max_length=given))
    rows = as_rows([{"messages": [turn(long), reply("fine")]}])
    with pytest.raises(BadInput, match=r"^rows:1: .*no assistant message to learn from within max_length \(64\)"):
        sft_examples(rows, tiny_model, SFTConfig(max_length=64))


GOOD = {"messages": [turn("hello"), reply("fine")]}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"text": "hello"}, "needs `messages`, or `prompt` and `completion`; this one has text"),
        ({"messages": []}, "needs `messages`"),
        ({"messages": [turn("hello")]}, "no assistant message"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "role is one of"),
        ({"messages": [turn("look", ["none.png"]), reply("a")]}, r"none.png does not exist"),
        ({"messages": [turn("look", ["../up.png"]), reply("a")]}, "leads out of"),
        ({"messages": [turn("look"), reply("a")], "images": ["a.png"]}, "has `images` beside its messages, where no"),
        ({"prompt": "look", "completion": "a", "image": "a.png"}, "has `image` beside its messages"),
    ],
)
def test_a_bad_row_is_named_by_its_place(tiny_model, write_rows, capsys, bad, reason):
    path = write_rows([GOOD, bad, GOOD])
    with pytest.raises(BadInput, match=rf"{path}:2: .*{reason}"):
        sft_examples(read_rows(path), tiny_model, SFTConfig(max_length=96))
    kept = sft_examples(read_rows(path), tiny_model, SFTConfig(max_length=96, on_bad_row="skip"))
    assert len(kept) == 2
    assert f"1 of 3 rows left out; the first: {path}:2: " in capsys.readouterr().out


def test_a_folder_of_pictures_stands_beside_the_rows(tiny_model, write_rows, picture):
    from PIL import Image

    path = write_rows([{"messages": [turn("look", ["a.png"]), reply("red")], "image": "a.png", "videos": []}])
    Image.fromarray(picture(3)).save(Path(path).parent / "a.png")
    example = sft_examples(read_rows(path), tiny_model, SFTConfig(max_length=96))[0]
    assert (example.media.images[0] == picture(3)).all()


@pytest.mark.parametrize("completion", [3, None, ["a"], [turn("hi")], []])
def test_a_completion_is_text_or_the_assistants_messages(tiny_model, completion):
    rows = as_rows([{"prompt": "hello", "completion": completion}])
    with pytest.raises(BadInput, match="^rows:1: "):
        sft_examples(rows, tiny_model, SFTConfig(max_length=96))
