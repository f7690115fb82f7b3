"""Gemma 3's way with pictures that are far from square: the whole picture, and crops of it side by side.

Its published processor leaves this off, and rows are not cropped by themselves: see docs/published_models.md.
"""

import math

import numpy as np
from jaxtyping import UInt8


def crops(
    picture: UInt8[np.ndarray, "H W 3"], *, least: int = 256, most: int = 4, ratio: float = 1.2
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
