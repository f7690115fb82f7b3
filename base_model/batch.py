"""Examples to arrays: packed rows for training, left-padded prompts for sampling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from base_model.config import ModelConfig
from base_model.interleave import Example
from base_model.media import NOTHING, Media, stack
from base_model.tokenizer import PAD
from base_model.towers import TOWERS
from training.errors import BadInput

# Longer prompts are read in parts: what the layers of a model make of 32,768 tokens at once would take many GiB.
AT_ONCE = 2048


class Batch(NamedTuple):
    """Rows of one or more examples.

    Attributes:
        tokens: ids, PAD where there is none.
        segments: 1, 2, ... for the examples of a row, 0 for padding.
        positions: place of each token in its own example.
        learn: whether the token is one to be produced; never true for the first token of an example.
        media: inputs of each row in the order of their places; rows with fewer end in blank ones.
    """

    tokens: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    learn: Bool[np.ndarray, "B T"]
    media: Media


def pack(rows: Sequence[Sequence[Example]], length: int, room: Media = NOTHING) -> Batch:
    """Lays the examples of each row one after another, padded at the end to `length`.

    Args:
        rows: examples of each row; together they must fit in `length`.
        length: tokens of a row.
        room: shapes of a row's media at least, see base_model.media; by default such as the rows need.
    """
    shape = (len(rows), length)
    tokens, segments, positions = (np.full(shape, fill, np.int32) for fill in (PAD, 0, 0))
    learn = np.zeros(shape, bool)
    for row, examples in enumerate(rows):
        start = 0
        for number, example in enumerate(examples, 1):
            part = slice(start, start + len(example))
            tokens[row, part], segments[row, part] = example.tokens, number
            positions[row, part], learn[row, part] = np.arange(len(example)), example.learn
            learn[row, start] = False
            start += len(example)
    media = stack([[example.media for example in examples] for examples in rows], room)
    return Batch(tokens, segments, positions, learn, media)


def pad_left(examples: Sequence[Example], length: int, room: Media = NOTHING) -> Batch:
    """One example a row, ending at the right edge, as prompts stand before their replies."""
    batch = pack([[example] for example in examples], length, room)
    shift = [length - len(example) for example in examples]
    roll = lambda x: np.stack([np.roll(row, by) for row, by in zip(x, shift, strict=True)])  # noqa: E731
    tokens, segments, positions, learn = (roll(x) for x in batch[:4])
    return Batch(tokens, segments, positions, learn, batch.media)


def require_media(examples: Sequence[Example], soft_tokens: Media, config: ModelConfig) -> None:
    """Counts the places for soft tokens against what the encoders make of the media that were given.

    Args:
        examples: of a batch or of many.
        soft_tokens: ids of the places, those of pictures and of frames, and those of sounds.
        config: of the model that is to read them.

    Raises:
        BadInput: when a picture, a clip or a sound is missing, or has another size than its places.
    """
    names = (("pictures", "clips"), ("sounds",))
    for example in examples:
        for names_of, ids, inputs, encoder in zip(
            names, soft_tokens, example.media, (config.vision, config.audio), strict=True
        ):
            places = [int((example.tokens == soft_token).sum()) for soft_token in ids]
            given = sum(TOWERS[type(encoder)].soft_tokens(item, encoder) for item in inputs or ()) if encoder else 0
            if sum(places) != given:
                asked = [name for name, count in zip(names_of, places, strict=False) if count] or names_of
                raise BadInput(
                    f"a row has places for {sum(places)} soft tokens of {' and '.join(asked)}, and the media beside it "
                    f"make {given}; give every row the media that its tokens were made with"
                )


def bucket(length: int, least: int = 64) -> int:
    """The row width for a length: `least` or a doubling of it, so that few widths, each compiled once, do for all."""
    return least * 2 ** max(0, math.ceil(math.log2(length / least)))


def cuts_of(tokens: Int[np.ndarray, "B T"], soft_tokens: tuple[int, ...], *, at_once: int = AT_ONCE) -> tuple[int, ...]:
    """Where to cut prompts into parts of `at_once` tokens, or of what it takes not to cut through a picture or a sound.

    Args:
        tokens: of the prompts; all are cut at the same places.
        soft_tokens: ids of the places of pictures and sounds.
        at_once: tokens of a part; a power of two gives the fewest programs to compile.
    """
    soft = np.isin(tokens, soft_tokens)
    inside = (soft[:, 1:] & soft[:, :-1]).any(0)  # whether a cut behind each token would go through one
    allowed = np.flatnonzero(~inside) + 1
    cuts = [0]
    while tokens.shape[1] - cuts[-1] > at_once:
        # The last place within reach; if there is none, the first beyond.
        within = allowed[(allowed > cuts[-1]) & (allowed <= cuts[-1] + at_once)]
        beyond = allowed[allowed > cuts[-1] + at_once]
        if not within.size and not beyond.size:
            break
        cuts.append(int(within[-1] if within.size else beyond[0]))
    return tuple(cuts[1:])
