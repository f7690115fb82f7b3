"""A tokenizer.model as a tokenizer.json: a published one, whose folder has no such, and one of our own."""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers

from base_model.gemma_tokenizer import GEMMA_3, GEMMA_4
from base_model.tokenizer import UNK
from training.errors import BadInput

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
BPE = 2
SPACE = "▁"
_CONTROLS = {*GEMMA_3.values(), *GEMMA_4.values()}


def tokenizer_json(model: bytes, added: Mapping[str, int]) -> bytes:
    """The same vocabulary, merges and added pieces as a tokenizer.json.

    SentencePiece joins the two neighbours whose union has the best score, so the order of merges is that of scores.
    Control tokens, and rows that stand for nothing, become special: no text is read as one of them.

    Args:
        model: the file tokenizer.model.
        added: further control tokens and their ids, which follow those of the file.

    Raises:
        BadInput: when it is no byte-pair model that leaves spaces as they are.
    """
    spec = _parsed(model)
    kept = spec.normalizer_spec
    if spec.trainer_spec.model_type != BPE or kept.add_dummy_prefix or kept.remove_extra_whitespaces:
        raise BadInput("tokenizer.model is none of a published Gemma model: those join pairs and keep every space")
    vocabulary = {entry.piece: number for number, entry in enumerate(spec.pieces)}
    merged = {entry.piece: entry.score for entry in spec.pieces if entry.type == NORMAL}
    pieces = tokenizers.Tokenizer(models.BPE(
        vocabulary, _merges(merged, vocabulary), unk_token="<unk>", byte_fallback=True, fuse_unk=True
    ))  # fmt: skip
    _keep_spaces(pieces)
    for entry in spec.pieces:
        special = entry.type in (UNKNOWN, CONTROL) or entry.piece in _CONTROLS or entry.piece.startswith("<unused")
        if special:
            pieces.add_special_tokens([AddedToken(entry.piece, special=True, normalized=False)])
        elif entry.type == USER_DEFINED:
            pieces.add_tokens([AddedToken(entry.piece, special=False, normalized=True)])
    for name, number in sorted(added.items(), key=lambda item: item[1]):
        pieces.add_special_tokens([AddedToken(name, special=True, normalized=False)])
        if (found := pieces.token_to_id(name)) != number:
            raise BadInput(f"{name} has the id {number} in config.json, and {found} behind tokenizer.model")
    return json.dumps(json.loads(pieces.to_str()), ensure_ascii=False).encode()


def unigram_json(model: bytes) -> bytes:
    """A tokenizer.model of our own (base_model/tokenizer.py) as a tokenizer.json, for other programs.

    They read control tokens that a text spells as control tokens, which this one never does.
    """
    spec = _parsed(model)
    scores = [(entry.piece, entry.score) for entry in spec.pieces]
    pieces = tokenizers.Tokenizer(models.Unigram(scores, unk_id=UNK, byte_fallback=True))
    _keep_spaces(pieces)
    controls = [entry.piece for entry in spec.pieces if entry.type in (UNKNOWN, CONTROL)]
    pieces.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in controls])
    return json.dumps(json.loads(pieces.to_str()), ensure_ascii=False).encode()


def _parsed(model: bytes) -> Any:
    spec: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        spec.ParseFromString(model)
    except DecodeError as error:
        raise BadInput(f"tokenizer.model is not a SentencePiece model: {error}") from error
    return spec


def _keep_spaces(pieces: tokenizers.Tokenizer) -> None:
    pieces.normalizer = normalizers.Replace(" ", SPACE)
    pieces.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])


def _merges(scores: Mapping[str, float], vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    found = []
    for piece, score in scores.items():
        splits = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
        found += [(-score, vocabulary[a], vocabulary[b], a, b) for a, b in splits if a in scores and b in scores]
    return [(a, b) for *_, a, b in sorted(found)]
