"""Examples to arrays: packed rows for training, left-padded prompts for sampling."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from base_model.config import ModelConfig
from base_model.interleave import Example
from base_model.tokenizer import PAD


class Batch(NamedTuple):
    """Rows of one or more examples.

    Attributes:
        tokens: ids, PAD where there is none.
        segments: 1, 2, ... for the examples of a row, 0 for padding.
        positions: place of each token in its own example.
        learn: whether the token is one to be produced; never true for the first token of an example.
        images: pictures of each row in the order of their places; rows with fewer end in blank ones.
    """

    tokens: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    learn: Bool[np.ndarray, "B T"]
    images: UInt8[np.ndarray, "B I H W 3"]


def pack(rows: Sequence[Sequence[Example]], length: int, config: ModelConfig, *, images: int | None = None) -> Batch:
    """Lays the examples of each row one after another, padded at the end to `length`.

    Args:
        rows: examples of each row; together they must fit in `length`.
        length: tokens of a row.
        config: for the size of pictures.
        images: picture slots of a row; by default as many as the fullest row needs.
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
    pictures = [[image for example in examples for image in example.images] for examples in rows]
    return Batch(tokens, segments, positions, learn, stack_images(pictures, config, images))


def pad_left(examples: Sequence[Example], length: int, config: ModelConfig, *, images: int | None = None) -> Batch:
    """One example a row, ending at the right edge, as prompts stand before their replies."""
    batch = pack([[example] for example in examples], length, config, images=images)
    shift = [length - len(example) for example in examples]
    roll = lambda x: np.stack([np.roll(row, by) for row, by in zip(x, shift, strict=True)])  # noqa: E731
    tokens, segments, positions, learn = (roll(x) for x in batch[:4])
    return Batch(tokens, segments, positions, learn, batch.images)


def bucket(length: int, least: int = 64) -> int:
    """The row width for a length: `least` or a doubling of it, so that few widths, each compiled once, do for all."""
    return least * 2 ** max(0, math.ceil(math.log2(length / least)))


def stack_images(
    pictures: Sequence[Sequence[np.ndarray]], config: ModelConfig, slots: int | None = None
) -> UInt8[np.ndarray, "B I H W 3"]:
    """Pictures of each row in one array, blank where a row has fewer than `slots`."""
    size = config.vision.image_size if config.vision else 1
    slots = max((len(row) for row in pictures), default=0) if slots is None else slots
    images = np.zeros((len(pictures), slots, size, size, 3), np.uint8)
    for index, row in enumerate(pictures):
        if row:
            images[index, : len(row)] = np.stack(row)
    return images
