"""The judge of drawn shapes, on shapes that are drawn here."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.parts.shapes import COLOURS, named, recognised, shape_of


def drawn(colour, shape, size=20, ground=(250, 235, 245)):
    """Four times as large, then made smaller: edges are mixed, as in the packaged pictures."""
    picture = Image.new("RGB", (256, 256), ground)
    left, top, side = 80, 60, 4 * size
    draw, box = ImageDraw.Draw(picture), (left, top, left + side, top + side)
    if shape == "circle":
        draw.ellipse(box, fill=COLOURS[colour])
    elif shape == "rectangle":
        draw.rectangle((left, top, left + side, top + side // 2), fill=COLOURS[colour])
    else:
        draw.polygon([(left, top + side), (left + side, top + side), (left + side // 2, top)], fill=COLOURS[colour])
    return np.asarray(picture.resize((64, 64), Image.Resampling.BOX))


@pytest.mark.parametrize("size", [10, 16, 28])
@pytest.mark.parametrize("shape", ["circle", "rectangle", "triangle"])
def test_colours_and_shapes_are_told(shape, size):
    for colour in COLOURS:
        assert shape_of(drawn(colour, shape, size)) == (colour, shape)


def test_nothing_is_seen_where_nothing_stands_out():
    assert shape_of(np.full((64, 64, 3), 230, np.uint8)) is None
    assert shape_of(np.random.default_rng(0).integers(220, 240, (64, 64, 3), dtype=np.uint8)) is None


def test_shares_of_right_pictures():
    assert named("Draw a red circle.") == ("red", "circle")
    pictures = [drawn("red", "circle"), drawn("blue", "circle"), drawn("red", "triangle")]
    pictures.append(np.zeros((64, 64, 3), np.uint8))
    found = recognised(pictures, [("red", "circle")] * 4)
    assert found == {"pictures": 4, "colour": 0.5, "shape": 0.5, "both": 0.25}
