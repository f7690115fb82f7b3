from pathlib import Path

import pytest
from gemma_vocabulary import GEMMA_3, GEMMA_4, vocabulary
from tokenizers import Tokenizer

from base_model.chat import messages_to_segments
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.media import Media
from training.errors import BadInput

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "how are you"}]


@pytest.fixture(scope="module")
def gemma_3():
    return GemmaTokenizer(vocabulary(GEMMA_3), vocab_size=320)


@pytest.fixture(scope="module")
def gemma_4():
    return GemmaTokenizer(vocabulary(GEMMA_4), vocab_size=320)


def read(tokenizer, ids):
    """The text of ids, control tokens included."""
    return Tokenizer.from_buffer(tokenizer.model).decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("text", ["hello", "a <|turn> b", "<end_of_turn>", "é語\n", "", "<eos><bos>", "  two  spaces"])
def test_a_text_survives_and_spells_no_control_token(gemma_3, gemma_4, text):
    for tokenizer in (gemma_3, gemma_4):
        ids = tokenizer.encode(text)
        assert not set(ids) & {*tokenizer.never_sampled, tokenizer.end_of_turn}
        assert tokenizer.decode(ids) == text


def test_half_a_surrogate_pair_is_refused(gemma_4):
    with pytest.raises(BadInput, match="surrogate"):
        gemma_4.encode("\ud800")


def test_turns_are_those_of_published_templates(gemma_3, gemma_4):
    for tokenizer, begin, end in [(gemma_3, "<start_of_turn>", "<end_of_turn>"), (gemma_4, "<|turn>", "<turn|>")]:
        segments = messages_to_segments(TALK, tokenizer, folder=Path(), ending="reply")
        said = read(tokenizer, [number for segment in segments for number in segment.ids])
        turns = f"{begin}user\nhello{end}\n{begin}model\nhow are you{end}\n{begin}model\n"
        assert said == f"<bos>{turns}"
        learned = [number for segment in segments if segment.learn for number in segment.ids]
        assert read(tokenizer, learned) == f"how are you{end}"


def test_only_gemma_4_has_a_system_turn(gemma_3, gemma_4):
    talk = [{"role": "system", "content": "hello"}, *TALK]
    segments = messages_to_segments(talk, gemma_4, folder=Path())
    said = read(gemma_4, [number for segment in segments for number in segment.ids])
    assert said.startswith("<bos><|turn>system\nhello<turn|>\n<|turn>user\n")
    with pytest.raises(BadInput, match="no system turn"):
        messages_to_segments(talk, gemma_3, folder=Path())


def test_control_tokens_have_our_names(gemma_3, gemma_4):
    assert gemma_3.soft_tokens == Media((8,), ())
    assert gemma_4.soft_tokens == Media((8, 12), (11,))
    assert gemma_4.control("<start_of_video>") == gemma_4.control("<start_of_image>") == 6
    assert gemma_4.end_of_turn == 5
    with pytest.raises(BadInput, match="<start_of_audio>"):
        gemma_3.control("<start_of_audio>")


def test_rows_without_a_piece_are_never_sampled(gemma_4):
    assert {0, 1, 2, 3, 4, 6, 8, 319} <= set(gemma_4.never_sampled)
    assert gemma_4.end_of_turn not in gemma_4.never_sampled
    assert gemma_4.vocab_size == 320
    with pytest.raises(BadInput, match="at most 20"):
        GemmaTokenizer(gemma_4.model, vocab_size=20)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", vocabulary(())])
def test_another_file_is_bad_input(content):
    with pytest.raises(BadInput, match="tokenizer.json"):
        GemmaTokenizer(content, vocab_size=320)
