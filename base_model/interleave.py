"""Segments of text and media to one token sequence with places for soft tokens."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from base_model.clips import load_clip, stamp
from base_model.config import ModelConfig
from base_model.drawing_tokenizer import require_drawing
from base_model.images import load_image
from base_model.media import NO_MEDIA, Media, count
from base_model.sounds import load_sound
from base_model.tokenizer import Tokenizer
from base_model.towers import prepared
from training.errors import BadInput


class Text(NamedTuple):
    """Token ids, and whether a model learns to produce them."""

    ids: list[int]
    learn: bool


class Medium(NamedTuple):
    """A picture, a sound or a clip as a row gives it.

    Attributes:
        kind: "image", "audio" or "video".
        value: see load_image, load_sound and load_clip.
        folder: where paths start.
    """

    kind: str
    value: Any
    folder: Path


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


Segment = Text | Medium | Drawn


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
    """Lays segments out in one sequence.

    Raises:
        BadInput: for a medium that cannot be read, is too long, or that the model has no encoder for.
    """
    tokens: list[int] = []
    learn: list[bool] = []
    images, sounds = [], []
    for segment in segments:
        if isinstance(segment, Text):
            ids, learned = segment.ids, segment.learn
        elif isinstance(segment, Drawn):
            picture = load_image(segment.value, segment.folder)
            ids, learned = require_drawing(tokenizer).draw(picture), segment.learn
        else:
            (ids, media), learned = _lay_out(segment, tokenizer, config), False
            images += media.images
            sounds += media.sounds
        tokens += ids
        learn += [learned] * len(ids)
    media = Media(tuple(images), tuple(sounds))
    return Example(tokens=np.array(tokens, np.int32), learn=np.array(learn, bool), media=media)


def _lay_out(medium: Medium, tokenizer: Tokenizer, config: ModelConfig) -> tuple[list[int], Media]:
    """A medium's tokens, with places for its soft tokens, and what the encoder reads."""
    kind, value, folder = medium
    encoder = config.audio if kind == "audio" else config.vision
    if encoder is None:
        raise BadInput(f"this model has no encoder for {kind}; leave such rows out or choose a model that has one")
    if kind == "audio":
        inputs, soft_tokens = prepared(encoder, load_sound(value, folder))
        return _places(kind, soft_tokens, tokenizer), Media((), (inputs,))
    if kind == "image":
        inputs, soft_tokens = prepared(encoder, load_image(value, folder))
        return _places(kind, soft_tokens, tokenizer), Media((inputs,), ())
    ids, frames = [], []
    clip = load_clip(value, folder, rate=config.clips.rate, max_frames=config.clips.max_frames)
    for frame, second in zip(clip.frames, clip.seconds, strict=True):
        inputs, soft_tokens = prepared(config.frame_vision, frame)
        ids += tokenizer.encode(f"{' ' if frames else ''}{stamp(second)} ") + _places(kind, soft_tokens, tokenizer)
        frames.append(inputs)
    return ids, Media(tuple(frames), ())


def _places(kind: str, soft_tokens: int, tokenizer: Tokenizer) -> list[int]:
    """Places for soft tokens in their brackets; a frame of a clip stands in those of a picture."""
    bracket = "image" if kind == "video" else kind
    begin, end = (tokenizer.control(f"<{edge}_of_{bracket}>") for edge in ("start", "end"))
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
        given = f"cutting a row of {len(example)} tokens to {length}"
        raise BadInput(f"{given} would cut a picture, a clip or a sound; raise max_length")
    return replace(example, tokens=example.tokens[:length], learn=example.learn[:length])


def require_fits(example: Example, length: int, option: str) -> Example:
    """Returns the example, or says which option would make room for it.

    Raises:
        BadInput: when it has more than `length` tokens.
    """
    if len(example) > length:
        raise BadInput(f"a row of {len(example)} tokens does not fit in {option} ({length}); raise it or cut the row")
    return example


def require_slots(media: Sequence[Media], slots: tuple[int, int] | None) -> None:
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


def kinds(example: Example, tokenizer: Tokenizer) -> list[str]:
    """Which of image, video and audio an example has."""
    return [kind for kind in ("image", "video", "audio") if tokenizer.control(f"<{kind}_soft_token>") in example.tokens]


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 over everything a model would read of these examples, in their order."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(example.tokens.tobytes() + example.learn.tobytes() + b"|")
        for leaf in jax.tree.leaves(example.media):
            sha.update(leaf.tobytes())
    return "sha256:" + sha.hexdigest()
