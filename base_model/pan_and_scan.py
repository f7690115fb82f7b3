"""Gemma 3's way with pictures that are far from square: the whole picture, and crops of it side by side.

Its published processor leaves this off, and so does a model's config (`max_crops` in base_model/siglip.py).
"""

import math
from typing import Any

import numpy as np
from jaxtyping import UInt8

from base_model.siglip import SiglipConfig

MOST_CROPS = 4  # where a published processor crops and does not say

# What the published processor says of a picture with crops: before it, behind it, and between two crops.
_BEFORE, _BEHIND, _BETWEEN = "Here is the original image ", " and here are some crops to help you see better ", " "


def crops_of(picture: UInt8[np.ndarray, "H W 3"], encoder: Any) -> list[UInt8[np.ndarray, "H2 W2 3"]]:
    """The crops that follow a picture, if the encoder's config asks for any."""
    if not isinstance(encoder, SiglipConfig) or not encoder.max_crops:
        return []
    return crops(picture, least=encoder.crop_size, most=encoder.max_crops, ratio=encoder.crop_ratio)


def between_crops(count: int) -> list[str]:
    """What is said before a picture, behind it, and between so many crops of it; nothing where there are none."""
    return [_BEFORE, _BEHIND, *[_BETWEEN] * (count - 1)] if count else [""]


def crops(
    picture: UInt8[np.ndarray, "H W 3"], *, least: int = 256, most: int = MOST_CROPS, ratio: float = 1.2
) -> list[UInt8[np.ndarray, "H2 W2 3"]]:
    """Nearly square crops along the longer side; none when the picture is nearly square or they would be small.

    Args:
        picture: of any shape.
        least: shortest side of a crop in pixels.
        most: how many crops there may be.
        ratio: longer side to shorter from which a picture is cropped.
    """
    axis = int(picture.shape[1] >= picture.shape[0])
    long, short = picture.shape[axis], picture.shape[1 - axis]
    count = min(most, max(2, min(long // least, math.floor(long / short + 0.5))))
    step = math.ceil(long / count)
    if long / short < ratio or min(step, short) < least:
        return []
    return np.split(picture, range(step, long, step), axis)
