"""Pictures of any shape as patches: resized to the largest grid that a budget of soft tokens allows, and cut up."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from training.errors import BadInput


class Patches(NamedTuple):
    """Patches of pictures, and where they stand: NumPy's arrays on the host, JAX's on devices.

    Attributes:
        pixels: rows, columns and colours of each patch one after another, as bytes or as fractions of 255.
        positions: column and row of each patch, -1 and -1 where there is none.
    """

    pixels: UInt8[Any, "*N P M"] | Float[Any, "*N P M"]
    positions: Int[Any, "*N P 2"]

    @property
    def valid(self) -> Bool[Any, "*N P"]:
        """Which patches are there."""
        return self.positions[..., 0] >= 0

    @property
    def fractions(self) -> Float32[Any, "*N P M"]:
        """Pixels from 0 to 1."""
        return self.pixels / jnp.float32(255) if self.pixels.dtype == jnp.uint8 else self.pixels


def grid(height: int, width: int, *, cell: int, budget: int) -> tuple[int, int]:
    """Rows and columns of cells of the largest grid within the budget that keeps a picture's proportions.

    Args:
        height: of the picture.
        width: of the picture.
        cell: side of a cell in pixels.
        budget: cells at most.

    Raises:
        BadInput: when the picture is so thin that a single row or column of cells would not keep its proportions.
    """
    if max(height, width) > budget * min(height, width):
        raise BadInput(
            f"a picture of {width} x {height} pixels is too thin: of the {budget} soft tokens that it may take each is "
            f"a square, so its longer side may be up to {budget} times the shorter; crop it"
        )
    scale = math.sqrt(budget * cell**2 / (height * width))
    rows, columns = (max(1, int(scale * side / cell)) for side in (height, width))
    return rows, columns


def cut(picture: UInt8[np.ndarray, "H W 3"], *, patch: int, group: int, budget: int, places: int) -> Patches:
    """A picture as patches, row by row.

    Args:
        picture: of any shape.
        patch: side of a patch in pixels.
        group: patches a side that become one soft token.
        budget: soft tokens at most.
        places: rows and columns of patches at most, as far as the model has learned positions.

    Raises:
        BadInput: when the picture is too thin for the budget or the places.
    """
    rows, columns = (group * side for side in grid(*picture.shape[:2], cell=group * patch, budget=budget))
    if max(rows, columns) > places:
        raise BadInput(
            f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels would have {max(rows, columns)} patches a "
            f"side, and the model knows {places} places; crop it"
        )
    resized = Image.fromarray(picture).resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = np.asarray(resized).reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    row, column = np.indices((rows, columns), np.int32)
    return Patches(pixels.reshape(rows * columns, -1), np.stack([column, row], -1).reshape(-1, 2))
