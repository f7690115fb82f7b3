"""Segments of text and media to one token sequence with places for soft tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from base_model.config import ModelConfig, VisionConfig
from base_model.images import resize
from base_model.tokenizer import Tokenizer
from training.errors import BadInput


class Text(NamedTuple):
    """Token ids, and whether a model learns to produce them."""

    ids: list[int]
    learn: bool


class Media(NamedTuple):
    """A picture, a sound or a clip: `kind` is "image", "audio" or "video"."""

    kind: str
    value: Any


Segment = Text | Media


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sequence as a model reads it.

    Attributes:
        tokens: int32 [T]; soft-token ids mark the places of media.
        learn: bool [T], whether each token is one the model is trained to produce.
        images: uint8 [H, W, 3] each, in the order of their places.
    """

    tokens: np.ndarray
    learn: np.ndarray
    images: list[np.ndarray] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of tokens."""
        return len(self.tokens)


def interleave(segments: Sequence[Segment], tokenizer: Tokenizer, config: ModelConfig) -> Example:
    """Lays segments out in one sequence; each medium stands between its brackets.

    Raises:
        BadInput: for a medium that the model has no encoder for.
    """
    tokens: list[int] = []
    learn: list[bool] = []
    images: list[np.ndarray] = []
    for segment in segments:
        if isinstance(segment, Text):
            ids, learned = segment.ids, segment.learn
        else:
            encoder = _encoder(segment.kind, config)
            ids, learned = _place(segment.kind, encoder.soft_tokens, tokenizer), False
            images.append(resize(segment.value, encoder.image_size))
        tokens += ids
        learn += [learned] * len(ids)
    return Example(tokens=np.array(tokens, np.int32), learn=np.array(learn, bool), images=images)


def _encoder(kind: str, config: ModelConfig) -> VisionConfig:
    encoder = {"image": config.vision}.get(kind)
    if encoder is None:
        raise BadInput(f"this model has no encoder for {kind}; leave such rows out or choose a model that has one")
    return encoder


def _place(kind: str, soft_tokens: int, tokenizer: Tokenizer) -> list[int]:
    begin, end = (tokenizer.control(f"<{edge}_of_{kind}>") for edge in ("start", "end"))
    return [begin, *[tokenizer.control(f"<{kind}_soft_token>")] * soft_tokens, end]


def truncate(example: Example, length: int, tokenizer: Tokenizer) -> Example:
    """The first `length` tokens, if no picture reaches beyond them.

    Raises:
        BadInput: when a picture would be cut or lost.
    """
    if len(example) <= length:
        return example
    if (example.tokens[length:] == tokenizer.image_token).any():
        raise BadInput(f"cutting a row of {len(example)} tokens to {length} would cut a picture; raise max_length")
    return Example(tokens=example.tokens[:length], learn=example.learn[:length], images=example.images)


def require_fits(example: Example, length: int, option: str) -> Example:
    """Returns the example, or says which option would make room for it.

    Raises:
        BadInput: when it has more than `length` tokens.
    """
    if len(example) > length:
        raise BadInput(f"a row of {len(example)} tokens does not fit in {option} ({length}); raise it or cut the row")
    return example


def require_few(pictures: int, most: int | None, option: str) -> None:
    """Says which option would make room for so many pictures; None sets no limit.

    Raises:
        BadInput: when there are more than `most`.
    """
    if most is not None and pictures > most:
        raise BadInput(f"{pictures} pictures do not fit in {option} ({most}); raise it or leave the row out")


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over everything a model would read of these examples, in their order."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(example.tokens.tobytes() + example.learn.tobytes() + b"|")
        for image in example.images:
            sha.update(image.tobytes())
    return "sha256:" + sha.hexdigest()
