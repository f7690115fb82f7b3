"""Segments of text and media to one token sequence with places for soft tokens."""

import hashlib
from collections.abc import Callable, Mapping, Sequence, Sized
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
from base_model.pan_and_scan import between_crops, crops_of
from base_model.segments import Drawn, Medium, Segment, Text, Words, encoded
from base_model.sounds import load_sound
from base_model.tokenizer import Tokenizer
from base_model.towers import prepared
from training.errors import BadInput


class Placed(NamedTuple):
    """Tokens of a medium, with places for its soft tokens, and what the encoder reads."""

    ids: list[int]
    media: Media


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
    return interleave_all([segments], tokenizer, config)[0]


def interleave_all(texts: Sequence[Sequence[Segment]], tokenizer: Tokenizer, config: ModelConfig) -> list[Example]:
    """Lays texts out, each in a sequence of its own; a medium that stands in several of them is read once.

    Raises:
        BadInput: as interleave does.
    """
    known: dict[tuple[str, object, Path], list[Placed]] = {}

    def read(medium: Medium) -> list[Placed]:
        # Bytes and arrays are the same where they are one object, as in a prompt that two texts begin with.
        name = medium.kind, medium.value if isinstance(medium.value, str) else id(medium.value), medium.folder
        if name not in known:
            known[name] = _read(medium, tokenizer, config)
        return known[name]

    return [_interleaved(segments, tokenizer, read) for segments in texts]


def _interleaved(
    segments: Sequence[Segment], tokenizer: Tokenizer, read: Callable[[Medium], list[Placed]]
) -> Example:
    laid_out: list[Text | Words | Placed] = []
    for segment in segments:
        if isinstance(segment, Drawn):
            picture = load_image(segment.value, segment.folder)
            laid_out.append(Text(require_drawing(tokenizer).draw(picture), segment.learn))
        elif isinstance(segment, Medium):
            laid_out += _in_words(read(segment), segment, tokenizer)
        else:
            laid_out.append(segment)
    tokens: list[int] = []
    learn: list[bool] = []
    images, sounds = [], []
    for part in encoded(laid_out, tokenizer):
        tokens += part.ids
        learn += [isinstance(part, Text) and part.learn] * len(part.ids)
        if isinstance(part, Placed):
            images += part.media.images
            sounds += part.media.sounds
    media = Media(tuple(images), tuple(sounds))
    return Example(tokens=np.array(tokens, np.int32), learn=np.array(learn, bool), media=media)


def _in_words(media: Sequence[Placed], medium: Medium, tokenizer: Tokenizer) -> list[Words | Placed]:
    """A medium between the words that stand around it; a picture with its crops in the sentence about them."""
    around, margin = tokenizer.around(medium.kind), tokenizer.margin(medium.kind)
    before, *between = between_crops(len(media) - 1)
    words = [around + before + margin, *(margin + text + margin for text in between), margin + around]
    told = [Words(text, medium.learn) for text in words]
    return [told[0], *(part for pair in zip(media, told[1:], strict=True) for part in pair)]


def _read(medium: Medium, tokenizer: Tokenizer, config: ModelConfig) -> list[Placed]:
    """A medium as the encoder reads it; a picture that is far from square may be followed by crops of it."""
    kind, value, folder, _ = medium
    encoder = config.audio if kind == "audio" else config.vision
    if encoder is None:
        raise BadInput(f"this model has no encoder for {kind}; leave such rows out or choose a model that has one")
    if kind == "audio":
        inputs, soft_tokens = prepared(encoder, load_sound(value, folder))
        return [Placed(_places(kind, soft_tokens, tokenizer), Media((), (inputs,)))]
    if kind == "image":
        picture = load_image(value, folder)
        seen = [prepared(encoder, part) for part in (picture, *crops_of(picture, encoder))]
        return [Placed(_places(kind, places, tokenizer), Media((inputs,), ())) for inputs, places in seen]
    ids, frames = [], []
    clip = load_clip(value, folder, rate=config.clips.rate, max_frames=config.clips.max_frames)
    for frame, second in zip(clip.frames, clip.seconds, strict=True):
        inputs, soft_tokens = prepared(config.frame_vision, frame)
        ids += tokenizer.encode(f"{' ' if frames else ''}{stamp(second)} ") + _places(kind, soft_tokens, tokenizer)
        frames.append(inputs)
    return [Placed(ids, Media(tuple(frames), ()))]


def _places(kind: str, soft_tokens: int, tokenizer: Tokenizer) -> list[int]:
    """Places for soft tokens in their brackets; a frame of a clip stands in those of a picture."""
    bracket = "image" if kind == "video" else kind
    begin, end = (tokenizer.control(f"<{edge}_of_{bracket}>") for edge in ("start", "end"))
    return [begin, *[tokenizer.control(f"<{kind}_soft_token>")] * soft_tokens, end]


def truncate(example: Example, length: int, tokenizer: Tokenizer, option: str) -> Example:
    """The first `length` tokens, if every medium ends within them.

    Args:
        example: what to cut.
        length: tokens that are left at most.
        tokenizer: knows the tokens of media.
        option: what sets the length, for the message.

    Raises:
        BadInput: when a medium would be cut or lost.
    """
    if len(example) <= length:
        return example
    # A medium has its closing bracket behind it: where none is cut off, no medium is touched.
    if np.isin(example.tokens[length:], tokenizer.media).any():
        given = f"cutting a row of {len(example)} tokens to {option} ({length})"
        raise BadInput(f"{given} would cut a picture, a clip or a sound; raise it or shorten the row")
    return replace(example, tokens=example.tokens[:length], learn=example.learn[:length])


# Where data sets keep media that their messages only hint at, or do not.
COLUMNS = ("image", "images", "audio", "audios", "video", "videos")


def require_read(values: Mapping[str, Any], examples: Sequence[Example], tokenizer: Tokenizer) -> None:
    """Says when a row has media in a column of its own, where nothing reads them, and none in its messages.

    Raises:
        BadInput: naming the column.
    """
    given = {name: value for name in COLUMNS if (value := values.get(name)) is not None}
    found = [name for name, value in given.items() if not isinstance(value, Sized) or len(value)]
    if found and not any(np.isin(example.tokens, tokenizer.media).any() for example in examples):
        part = '{"type": "image", "image": ...}'
        raise BadInput(
            f"a row has `{found[0]}` beside its messages, where no medium is read: put it into them, as a part {part}"
        )


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
