from pathlib import Path

import pytest
from gemma_vocabulary import GEMMA_3, GEMMA_4, vocabulary
from tokenizers import Tokenizer

from base_model.chat import messages_to_segments
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.media import Media
from base_model.segments import encoded
from training.errors import BadInput

TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "how are you"}]


@pytest.fixture(scope="module")
def gemma_3():
    return GemmaTokenizer(vocabulary(GEMMA_3), vocab_size=320)


@pytest.fixture(scope="module")
def gemma_4():
    return GemmaTokenizer(vocabulary(GEMMA_4), vocab_size=320)


def special(tokenizer):
    """The ids of all control tokens."""
    added = Tokenizer.from_buffer(tokenizer.model).get_added_tokens_decoder()
    return {number for number, piece in added.items() if piece.special}


def read(tokenizer, ids):
    """The text of ids, control tokens included."""
    return Tokenizer.from_buffer(tokenizer.model).decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("text", ["hello", "a <|turn> b", "<end_of_turn>", "é語\n", "", "<eos><bos>", "  two  spaces"])
def test_a_text_survives_and_spells_no_control_token(gemma_3, gemma_4, text):
    for tokenizer in (gemma_3, gemma_4):
        ids = tokenizer.encode(text)
        assert not set(ids) & special(tokenizer) and special(tokenizer) > {*range(4), tokenizer.end_of_turn}
        assert tokenizer.decode(ids) == text


def test_half_a_surrogate_pair_is_refused(gemma_4):
    with pytest.raises(BadInput, match="surrogate"):
        gemma_4.encode("\ud800")


def test_turns_are_those_of_published_templates(gemma_3, gemma_4):
    for tokenizer, begin, end in [(gemma_3, "<start_of_turn>", "<end_of_turn>"), (gemma_4, "<|turn>", "<turn|>")]:
        segments = messages_to_segments(TALK, tokenizer, folder=Path(), ending="reply")
        segments = encoded(segments, tokenizer)
        said = read(tokenizer, [number for segment in segments for number in segment.ids])
        turns = f"{begin}user\nhello{end}\n{begin}model\nhow are you{end}\n{begin}model\n"
        assert said == f"<bos>{turns}"
        learned = [number for segment in segments if segment.learn for number in segment.ids]
        assert read(tokenizer, learned) == f"how are you{end}"


def test_only_gemma_4_has_a_system_turn(gemma_3, gemma_4):
    talk = [{"role": "system", "content": "hello"}, *TALK]
    segments = encoded(messages_to_segments(talk, gemma_4, folder=Path()), gemma_4)
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


def test_media_padding_and_rows_without_a_piece_are_never_sampled(gemma_3, gemma_4):
    pieces = Tokenizer.from_buffer(gemma_4.model).get_vocab_size()
    assert set(gemma_4.never_sampled) == {0, 2, *range(6, 13), *range(pieces, 320)}
    # Whatever else the model may write: the end of a text, and control tokens of its own.
    assert set(gemma_3.never_sampled) & set(range(10)) == {0, 2, 6, 7, 8}


def test_the_end_of_a_text_ends_a_reply_as_well(gemma_4):
    assert gemma_4.stops == (1,)
    told = GemmaTokenizer(gemma_4.model, vocab_size=320, stops=[300, 5, 1, 0, 8])
    assert told.stops == (1, 300) and told.settings["stops"] == [1, 300]  # neither padding nor media end anything
    assert told.digest != gemma_4.digest


def test_a_tokenizer_takes_no_more_pieces_than_the_model_has_rows(gemma_4):
    assert gemma_4.vocab_size == 320
    with pytest.raises(BadInput, match="at most 20"):
        GemmaTokenizer(gemma_4.model, vocab_size=20)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", vocabulary(())])
def test_another_file_is_bad_input(content):
    with pytest.raises(BadInput, match="tokenizer.json"):
        GemmaTokenizer(content, vocab_size=320)
