"""What a conversation is made of before it is one sequence: tokens, words, media, and pictures that are said."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from base_model.tokenizer import Tokenizer


class Text(NamedTuple):
    """Token ids, and whether a model learns to produce them."""

    ids: list[int]
    learn: bool


class Words(NamedTuple):
    """A text that is no ids yet, for it may be joined with the next, and whether a model learns to produce it."""

    text: str
    learn: bool


class Medium(NamedTuple):
    """A picture, a sound or a clip as a row gives it.

    Attributes:
        kind: "image", "audio" or "video".
        value: see load_image, load_sound and load_clip.
        folder: where paths start.
        learn: whether a model learns to produce the words around it; itself it is never produced.
    """

    kind: str
    value: Any
    folder: Path
    learn: bool


class Drawn(NamedTuple):
    """A picture that the assistant says, and so is made of tokens like a text.

    Attributes:
        value: see load_image.
        folder: where paths start.
        learn: whether a model learns to produce it.
    """

    value: Any
    folder: Path
    learn: bool


Segment = Text | Words | Medium | Drawn


def encoded(segments: Sequence[Any], tokenizer: Tokenizer) -> list[Any]:
    """The segments with their words as Text, neighbours joined where the tokenizer does so; all else as it is."""
    found: list[Any] = []
    for learn, run in itertools.groupby(segments, lambda part: part.learn if isinstance(part, Words) else None):
        parts = list(run)
        found += [part for part in parts if not isinstance(part, Words)]
        texts = [part.text for part in parts if isinstance(part, Words)]
        texts = ["".join(texts)] if tokenizer.joins_texts else texts
        found += [Text(tokenizer.encode(text), bool(learn)) for text in texts if text]
    return found
