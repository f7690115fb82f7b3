import numpy as np
import pytest
from golden_tower import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from base_model.patch_grid import Patches, cut, grid
from training.errors import BadInput

SIDES = st.integers(1, 20_000)


def test_a_picture_equals_the_published_preprocessing():
    stored = golden("gemma4_e", "preprocess")
    picture = cut(stored["image_u8"], patch=4, group=3, budget=70, places=64)
    count = len(picture.positions)
    assert count == 9 * stored["image/num_soft_tokens_per_image"][0]
    np.testing.assert_array_equal(picture.positions, stored["image/image_position_ids"][0, :count])
    assert (stored["image/image_position_ids"][0, count:] == -1).all()
    np.testing.assert_allclose(picture.fractions, stored["image/pixel_values"][0, :count], rtol=0, atol=1e-7)
    assert picture.pixels.dtype == np.uint8 and picture.positions.dtype == np.int32 and picture.valid.all()


def test_a_large_patch_is_a_square_of_small_ones():
    picture = np.random.default_rng(0).integers(0, 256, (31, 50, 3), dtype=np.uint8)
    small = cut(picture, patch=4, group=3, budget=12, places=64)
    large = cut(picture, patch=12, group=1, budget=12, places=64)
    for pixels, (column, row) in zip(large.pixels, large.positions, strict=True):
        square = np.zeros((12, 12, 3), np.uint8)
        for part, (x, y) in zip(small.pixels, small.positions - 3 * np.array([column, row]), strict=True):
            if 0 <= x < 3 and 0 <= y < 3:
                square[4 * y : 4 * y + 4, 4 * x : 4 * x + 4] = part.reshape(4, 4, 3)
        np.testing.assert_array_equal(pixels.reshape(12, 12, 3), square)


def test_a_picture_that_fits_is_not_resized():
    picture = np.arange(24 * 36 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 36, 3)
    patches = cut(picture, patch=12, group=1, budget=6, places=3)
    np.testing.assert_array_equal(patches.positions, [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)])
    np.testing.assert_array_equal(patches.pixels[5].reshape(12, 12, 3), picture[12:, 24:])


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.sampled_from([70, 140, 280, 560, 1120]))
def test_a_grid_spends_the_budget_and_keeps_the_proportions(height, width, budget):
    ratio = max(height, width) / min(height, width)
    if ratio > budget:
        with pytest.raises(BadInput, match="too thin"):
            grid(height, width, cell=48, budget=budget)
        return
    rows, columns = grid(height, width, cell=48, budget=budget)
    ideal = np.sqrt(budget * height / width), np.sqrt(budget * width / height)
    assert 1 <= rows <= ideal[0] + 1e-9 and rows > ideal[0] - 1 - 1e-9
    assert 1 <= columns <= ideal[1] + 1e-9 and columns > ideal[1] - 1 - 1e-9
    assert rows * columns <= budget


@pytest.mark.parametrize(
    ("shape", "grid_of"), [((896, 896), (16, 16)), ((1080, 1920), (12, 22)), ((3000, 40), (144, 1)), ((1, 1), (16, 16))]
)
def test_the_grids_of_some_pictures(shape, grid_of):
    assert grid(*shape, cell=48, budget=280) == grid_of


def test_what_does_not_fit_is_refused():
    thin = np.zeros((2, 300, 3), np.uint8)
    with pytest.raises(BadInput, match="300 x 2 pixels is too thin: of the 70 .* be up to 70 times .* crop it$"):
        cut(thin, patch=4, group=3, budget=70, places=1000)
    with pytest.raises(BadInput, match="300 x 2 pixels would have 450 patches a side, .*knows 64 places; crop it$"):
        cut(thin, patch=4, group=3, budget=150, places=64)


def test_what_is_not_there_stands_at_minus_one():
    patches = Patches(np.zeros((3, 12), np.uint8), np.array([[0, 0], [1, 0], [-1, -1]], np.int32))
    assert patches.valid.tolist() == [True, True, False]
