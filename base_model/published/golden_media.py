"""Pictures and sounds of golden.npz as the encoders read them, each in its row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from base_model.config import ModelConfig
from base_model.conformer import Spectrogram
from base_model.frames import Frames, FramesConfig
from base_model.media import Media
from base_model.patch_grid import Patches
from base_model.siglip import SiglipConfig
from training.errors import BadInput

# What the encoders are given.
ARGUMENTS = (
    "pixel_values", "image_position_ids", "pixel_values_videos", "video_position_ids", "input_features",
    "input_features_mask",
)  # fmt: skip


def media_of(inputs: Mapping[str, np.ndarray], config: ModelConfig, soft_tokens: Media) -> list[list[Media]]:
    """The media of each row of a case.

    Args:
        inputs: arguments of the published model's forward pass.
        config: of the model.
        soft_tokens: ids of the places for soft tokens. A run of one of them is one picture or one sound.

    Raises:
        BadInput: when there are more or fewer than places for them.
    """
    waiting = _by_token(inputs, config, soft_tokens)
    rows = []
    try:
        for row in inputs["input_ids"]:
            begins = [int(token) for token in row[np.diff(row, prepend=-1) != 0]]
            found = [[next(waiting[token]) for token in begins if token in ids] for ids in soft_tokens]
            rows.append([Media(*map(tuple, found))])
        too_many = [item for items in waiting.values() for item in items]
    except (StopIteration, KeyError):
        too_many = [None]
    if too_many:
        raise BadInput("a case of golden.npz has not as many pictures or sounds as places for them")
    return rows


def tower_media(
    stored: Mapping[str, np.ndarray], cases: Sequence[Mapping[str, np.ndarray]], config: ModelConfig
) -> Media:
    """The pictures and sounds that the encoders alone are compared in.

    Args:
        stored: what is stored of the encoders, their arguments with or without "in/" in front.
        cases: arguments of each case. Where the encoders have none of their own, those of the first case that has some
            are meant.
        config: of the model.
    """
    own = {name.removeprefix("in/"): array for name, array in stored.items()}
    having = lambda names: next((inputs for inputs in (own, *cases) if inputs.keys() >= names), {}) if stored else {}  # noqa: E731
    pictures = having({"pixel_values"}) if config.vision is not None else {}
    sounds = having({"input_features", "input_features_mask"}) if config.audio is not None else {}
    images = _pictures(config, pictures["pixel_values"], pictures.get("image_position_ids")) if pictures else ()
    return Media(tuple(images), tuple(_sounds(config, sounds)) if sounds else ())


def _by_token(inputs: Mapping[str, np.ndarray], config: ModelConfig, soft_tokens: Media) -> dict[int, Iterator[Any]]:
    """The media that wait for the places of each soft token."""
    waiting: dict[int, Iterator[Any]] = {}
    for token, pixels, positions in zip(
        soft_tokens.images, ("pixel_values", "pixel_values_videos"), ("image", "video"), strict=False
    ):
        if pixels in inputs:
            waiting[token] = _pictures(config, inputs[pixels], inputs.get(f"{positions}_position_ids"))
    if "input_features" in inputs:
        waiting[soft_tokens.sounds[0]] = _sounds(config, inputs)
    return waiting


def _sounds(config: ModelConfig, inputs: Mapping[str, np.ndarray]) -> Iterator[Any]:
    sort = Frames if isinstance(config.audio, FramesConfig) else Spectrogram
    return (sort(*sound) for sound in zip(inputs["input_features"], inputs["input_features_mask"], strict=True))


def _pictures(config: ModelConfig, pixels: np.ndarray, positions: np.ndarray | None) -> Iterator[Any]:
    if isinstance(config.vision, SiglipConfig):
        return iter(pixels.transpose(0, 2, 3, 1))
    if positions is None:
        raise BadInput("a case of golden.npz has pictures without the positions of their patches")
    flat = lambda array: array.reshape(-1, *array.shape[-2:])  # noqa: E731
    return (Patches(*picture) for picture in zip(flat(pixels), flat(positions), strict=True))
