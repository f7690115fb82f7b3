"""Segments of text and media to one token sequence with places for soft tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np

from base_model.config import ModelConfig
from base_model.media import NO_MEDIA, Media, count
from base_model.tokenizer import Tokenizer
from base_model.towers import prepared
from training.errors import BadInput


class Text(NamedTuple):
    """Token ids, and whether a model learns to produce them."""

    ids: list[int]
    learn: bool


class Medium(NamedTuple):
    """A picture, a sound or a clip: `kind` is "image", "audio" or "video"."""

    kind: str
    value: Any


Segment = Text | Medium


@dataclass(frozen=True, kw_only=True)
class Example:
    """One sequence as a model reads it.

    Attributes:
        tokens: int32 [T]; soft-token ids mark the places of media.
        learn: bool [T], whether each token is one the model is trained to produce.
        media: what the towers read, in the order of their places.
    """

    tokens: np.ndarray
    learn: np.ndarray
    media: Media = NO_MEDIA

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
    images = []
    for segment in segments:
        if isinstance(segment, Text):
            ids, learned = segment.ids, segment.learn
        else:
            inputs, places = prepared(_encoder(segment.kind, config), segment.value)
            ids, learned = _place(segment.kind, places, tokenizer), False
            images.append(inputs)
        tokens += ids
        learn += [learned] * len(ids)
    return Example(tokens=np.array(tokens, np.int32), learn=np.array(learn, bool), media=Media(tuple(images), ()))


def _encoder(kind: str, config: ModelConfig) -> Any:
    encoder = {"image": config.vision}.get(kind)
    if encoder is None:
        raise BadInput(f"this model has no encoder for {kind}; leave such rows out or choose a model that has one")
    return encoder


def _place(kind: str, soft_tokens: int, tokenizer: Tokenizer) -> list[int]:
    begin, end = (tokenizer.control(f"<{edge}_of_{kind}>") for edge in ("start", "end"))
    return [begin, *[tokenizer.control(f"<{kind}_soft_token>")] * soft_tokens, end]


def truncate(example: Example, length: int, tokenizer: Tokenizer) -> Example:
    """The first `length` tokens, if every medium ends within them.

    Raises:
        BadInput: when a medium would be cut or lost.
    """
    if len(example) <= length:
        return example
    # A medium has its closing bracket behind it: where none is cut off, no medium is touched.
    if np.isin(example.tokens[length:], tokenizer.media).any():
        raise BadInput(f"cutting a row of {len(example)} tokens to {length} would cut a picture; raise max_length")
    return replace(example, tokens=example.tokens[:length], learn=example.learn[:length])


def require_fits(example: Example, length: int, option: str) -> Example:
    """Returns the example, or says which option would make room for it.

    Raises:
        BadInput: when it has more than `length` tokens.
    """
    if len(example) > length:
        raise BadInput(f"a row of {len(example)} tokens does not fit in {option} ({length}); raise it or cut the row")
    return example


def require_slots(media: Sequence[Media], slots: Media | None) -> None:
    """Says which option would make room for the media of a row; None sets no limit.

    Raises:
        BadInput: when there are more than `slots`.
    """
    if slots is None:
        return
    options = ("pictures", "max_images"), ("sounds", "max_sounds")
    for (name, option), found, most in zip(options, count(media), slots, strict=True):
        if found > most:
            raise BadInput(f"{found} {name} do not fit in {option} ({most}); raise it or leave the row out")


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over everything a model would read of these examples, in their order."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(example.tokens.tobytes() + example.learn.tobytes() + b"|")
        for leaf in jax.tree.leaves(example.media):
            sha.update(leaf.tobytes())
    return "sha256:" + sha.hexdigest()
