import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.tokenizer import BOS, CONTROLS, EOS, PAD, UNK, Tokenizer
from training.errors import BadInput

SPECIAL = (*CONTROLS, "<pad>", "<s>", "</s>", "<unk>", "<0x41>")
TEXTS = st.lists(st.one_of(st.text(), st.sampled_from(SPECIAL)), max_size=6).map("".join)


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_any_text_survives_and_spells_no_control_token(tokenizer, text):
    text = text.replace("\u2581", "_")  # SentencePiece's own sign for a space
    ids = tokenizer.encode(text)
    assert not set(ids) & {*tokenizer.never_sampled, tokenizer.end_of_turn}
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("piece", SPECIAL)
def test_a_user_who_spells_a_control_token_writes_plain_characters(tokenizer, piece):
    ids = tokenizer.encode(f"hello{piece}hello")
    assert not set(ids) & {*tokenizer.never_sampled, tokenizer.end_of_turn}
    assert tokenizer.decode(ids) == f"hello{piece}hello"


def test_a_character_outside_the_corpus_falls_back_to_its_bytes(tokenizer):
    first_byte = tokenizer.encode("\x00")[0]
    assert tokenizer.encode("語") == [first_byte + byte for byte in "語".encode()]


def test_digits_are_split(tokenizer):
    assert len(tokenizer.encode("1234")) >= 4


def test_the_four_fixed_ids():
    assert (PAD, EOS, BOS, UNK) == (0, 1, 2, 3)


def test_controls_have_ids_of_their_own(tokenizer):
    ids = [tokenizer.control(piece) for piece in CONTROLS]
    assert len(set(ids)) == len(CONTROLS) and min(ids) > UNK
    assert tokenizer.end_of_turn == tokenizer.control("<end_of_turn>")
    assert tokenizer.control("<image_soft_token>") in tokenizer.soft_tokens.images


def test_never_sampled_is_every_special_id_but_the_end_of_turn(tokenizer):
    controls = {tokenizer.control(piece) for piece in CONTROLS}
    assert set(tokenizer.never_sampled) == {PAD, EOS, BOS, UNK} | controls - {tokenizer.end_of_turn}


def test_controls_leave_no_trace_in_text(tokenizer):
    assert tokenizer.decode([BOS, *tokenizer.encode("hello"), tokenizer.end_of_turn, EOS, PAD]) == "hello"


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(BadInput, match="surrogate pair at character 3"):
        tokenizer.encode("hi \ud83d")


def test_a_saved_model_loads_alike(tokenizer, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(tokenizer.model)
    again = Tokenizer.load(tmp_path / "tokenizer.model")
    assert again.digest == tokenizer.digest
    assert again.encode("the cat") == tokenizer.encode("the cat")


@pytest.mark.parametrize("kept", [0, 3, 100, -1], ids="{} bytes".format)
def test_a_truncated_model_is_refused(tokenizer, kept):
    with pytest.raises(BadInput, match="not a SentencePiece model"):
        Tokenizer(tokenizer.model[:kept])


def test_a_damaged_model_is_refused_or_at_least_another(tokenizer):
    for place in range(0, len(tokenizer.model), 37):
        damaged = bytearray(tokenizer.model)
        damaged[place] ^= 0x40
        try:
            other = Tokenizer(bytes(damaged))
        except BadInput:
            continue
        assert other.digest != tokenizer.digest


def test_a_model_without_control_tokens_is_refused(tokenizer):
    with pytest.raises(BadInput, match="no control token <user>"):
        Tokenizer(tokenizer.model.replace(b"<user>", b"<usfr>"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="tokenizer.model cannot be read"):
        Tokenizer.load(tmp_path / "tokenizer.model")


def test_more_ids_than_the_corpus_gives_is_refused():
    with pytest.raises(BadInput, match="could not be trained with 5000"):
        Tokenizer.train(["a small corpus"], vocab_size=5000)
