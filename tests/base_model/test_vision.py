import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from base_model.config import ModelConfig
from base_model.vision import PatchEncoder, VisionConfig
from training.errors import BadInput


@pytest.fixture(scope="module")
def encoder(structure, tiny_model):
    return nnx.merge(structure, tiny_model.params).vision


def naive_soft_tokens(encoder, image):
    """Pixel by pixel, in float64; the convolution hangs over the right and the lower edge by one."""
    pixels = image.astype(np.float64)
    relative = (pixels - pixels[0, 0]) / 127.5
    x = np.concatenate([relative, (np.abs(relative).max(-1, keepdims=True) > 0.08)], -1)
    for kernel, bias in zip(encoder.kernels, encoder.biases, strict=True):
        kernel, padded = np.asarray(kernel[...], np.float64), np.pad(x, ((0, 1), (0, 1), (0, 0)))
        side = len(x) // 2
        x = np.zeros((side, side, kernel.shape[-1]))
        for i, j in np.ndindex(side, side):
            x[i, j] = np.einsum("hwc,hwcd->d", padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel)
        x = np.maximum(x + np.asarray(bias[...]), 0)
    side = len(x) // encoder.vision.grid
    tokens = []
    for i, j in np.ndindex(encoder.vision.grid, encoder.vision.grid):
        cells = x[i * side : (i + 1) * side, j * side : (j + 1) * side].reshape(-1)
        token = cells @ np.asarray(encoder.project[...]) + np.asarray(encoder.place[...])[len(tokens)]
        tokens.append(token / np.sqrt((token**2).mean() + 1e-6) * np.asarray(encoder.norm.weight[...]))
    return np.array(tokens)


def test_soft_tokens_equal_a_naive_convolution(encoder, picture):
    images = np.stack([picture(0), picture(1)])
    soft = jax.jit(lambda images: encoder(images)[0])(jnp.array(images))
    for token, image in zip(soft, images, strict=True):
        np.testing.assert_allclose(token, naive_soft_tokens(encoder, image), atol=1e-4)


def test_a_brighter_background_changes_nothing(encoder):
    dark = np.zeros((2, 16, 16, 3), np.uint8)
    dark[1] = 40
    dark[:, 4:9, 4:9] += 100
    soft = jax.jit(lambda images: encoder(images)[0])(jnp.array(dark))
    np.testing.assert_allclose(soft[0], soft[1], atol=1e-5)


def test_a_grid_that_does_not_divide_the_cells_is_refused():
    with pytest.raises(BadInput, match="leaves 4 cells a side, which 3 soft tokens"):
        VisionConfig(image_size=16, channels=(4, 6), grid=3)
    assert VisionConfig(image_size=32, channels=(4, 6), grid=2).cells == 8


def test_sizes_follow_from_the_config(tiny_config):
    config = ModelConfig(vocab_size=8, embed_dim=20, layers=tiny_config.layers, vision=VisionConfig())
    shape = jax.eval_shape(
        lambda images: PatchEncoder(VisionConfig(), config, rngs=nnx.Rngs(0))(images)[0],
        jax.ShapeDtypeStruct((3, 64, 64, 3), jnp.uint8),
    )
    assert shape.shape == (3, 16, 20)
