"""What coloured shape a picture shows, by its pixels: a judge that has learned nothing."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

COLOURS = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128), "green": (0, 255, 0),
    "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip
# Of the rectangle around it, how much a shape fills.
FILLED = {"circle": np.pi / 4, "rectangle": 1.0, "triangle": 0.5}


def shape_of(picture: UInt8[np.ndarray, "H W 3"]) -> tuple[str, str] | None:
    """The nearest colour and shape, like ("red", "circle"); None where nothing stands out from the ground.

    The ground is the median pixel. What is further from it than half as far as the furthest pixel is the shape, whose
    colour is its median. Pixels on its edge count by how far they are from the ground; the longest row and the longest
    column are the sides of the rectangle around the shape.
    """
    pixels = picture.astype(float)
    away = np.linalg.norm(pixels - np.median(pixels, (0, 1)), axis=-1)
    if away.max() < 60:
        return None
    inside = away > away.max() / 2
    colour = np.median(pixels[inside], 0)
    covered = np.clip(away / np.median(away[inside]), 0, 1)
    covered[covered < 0.25] = 0  # blur
    filled = covered.sum() / (covered.sum(0).max() * covered.sum(1).max())
    return (
        min(COLOURS, key=lambda name: float(np.linalg.norm(colour - COLOURS[name]))),
        min(FILLED, key=lambda name: abs(filled - FILLED[name])),
    )


def named(prompt: str) -> tuple[str, str]:
    """Colour and shape of a prompt like "Draw a red circle."."""
    colour, shape = prompt.removeprefix("Draw a ").removesuffix(".").split()
    return colour, shape


def recognised(pictures: Sequence[np.ndarray], wanted: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Of how many pictures colour, shape and both are those that are wanted."""
    found = [shape_of(picture) or ("", "") for picture in pictures]
    right = np.array(found) == np.array(wanted)
    return {"pictures": len(right), "colour": float(right[:, 0].mean()), "shape": float(right[:, 1].mean()),
            "both": float(right.all(1).mean())}  # fmt: skip
