"""Which encoder reads what: one line for each kind of picture or sound encoder."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from base_model import conformer, frames, gemma4_vision, patches, siglip, vision
from base_model.config import ModelConfig
from base_model.media import Inputs, Media, room


class Tower(NamedTuple):
    """An encoder and its preparations on the host.

    Attributes:
        encoder: module that is made of its config and the model's, and takes inputs with N pictures or sounds to soft
            tokens [N, S, D] and which of them count, [N, S], or None for all.
        prepare: takes a picture, uint8 [H, W, 3], or a wave, float32 [T] at 16 kHz, and the encoder's config to inputs.
        soft_tokens: how many soft tokens the encoder makes of prepared inputs.
    """

    encoder: Callable[..., Any]
    prepare: Callable[[np.ndarray, Any], Inputs]
    soft_tokens: Callable[[Inputs, Any], int]


TOWERS = {
    vision.VisionConfig: Tower(vision.PatchEncoder, vision.prepare, vision.soft_tokens),
    siglip.SiglipConfig: Tower(siglip.Siglip, siglip.prepare, siglip.soft_tokens),
    gemma4_vision.Gemma4VisionConfig: Tower(
        gemma4_vision.Gemma4Vision, gemma4_vision.prepare, gemma4_vision.soft_tokens
    ),
    patches.PatchesConfig: Tower(patches.PatchEmbedder, patches.prepare, patches.soft_tokens),
    conformer.ConformerConfig: Tower(conformer.Conformer, conformer.prepare, conformer.soft_tokens),
    frames.FramesConfig: Tower(frames.FrameEmbedder, frames.prepare, frames.soft_tokens),
}


def prepared(config: Any, value: np.ndarray) -> tuple[Inputs, int]:
    """A picture or wave as the encoder of this config reads it, and the number of its soft tokens."""
    tower = TOWERS[type(config)]
    inputs = tower.prepare(value, config)
    return inputs, tower.soft_tokens(inputs, config)


def room_of_one(config: ModelConfig) -> Media:
    """Room for one picture where the model has an encoder, so that batches without any share a program."""
    if config.vision is None:
        return Media()
    picture, _ = prepared(config.vision, np.zeros((1, 1, 3), np.uint8))
    return room([[Media((picture,), ())]])
