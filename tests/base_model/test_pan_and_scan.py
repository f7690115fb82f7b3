import numpy as np
import pytest
from golden_tower import golden

from base_model.images import resize
from base_model.pan_and_scan import crops


def test_crops_equal_the_published_ones():
    stored = golden("gemma3", "preprocess")
    picture = stored["image_u8"]
    parts = crops(picture, least=32)
    assert len(parts) == stored["num_crops"][0]
    for part, values in zip([picture, *parts], stored["pixel_values_pan_and_scan"], strict=True):
        np.testing.assert_allclose(resize(part, 56) / 127.5 - 1, values.transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "widths"),
    [
        ((1000, 1000), []),
        ((1000, 1199), []),
        ((1000, 1200), [600, 600]),
        ((300, 1000), [334, 334, 332]),
        ((300, 9000), [2250] * 4),
        ((300, 500), []),  # crops of 250 pixels would be too small
        ((255, 900), []),
    ],
)
def test_crops_stand_side_by_side_along_the_longer_side(shape, widths):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    lying = crops(picture)
    assert [part.shape[1] for part in lying] == widths
    for part, upright in zip(lying, crops(picture.swapaxes(0, 1)), strict=True):
        np.testing.assert_array_equal(part, upright.swapaxes(0, 1))
    if lying:
        np.testing.assert_array_equal(np.concatenate(lying, 1), picture)
