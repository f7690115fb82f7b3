import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_tower import FIXTURES, golden, golden_tower

from base_model.config import LayerSpec, ModelConfig
from base_model.patch_grid import Patches
from base_model.patches import PatchEmbedder, PatchesConfig, prepare, soft_tokens
from base_model.published.patches import patches
from training.errors import BadInput

SMALL = PatchesConfig(patch=12, width=40, places=32, max_soft_tokens=6)


@pytest.fixture(scope="module")
def tower():
    layer = LayerSpec(heads=4, kv_heads=1, head_dim=16, mlp_dim=96)
    config = ModelConfig(vocab_size=320, embed_dim=64, layers=(layer,))
    make = lambda: PatchEmbedder(SMALL, config, rngs=nnx.Rngs(0))  # noqa: E731
    return golden_tower("gemma4_unified", make, patches(), ("vision_embedder.", "embed_vision."))


@pytest.fixture(scope="module")
def encode(tower):
    structure, params = nnx.split(tower)
    return jax.jit(lambda pictures: nnx.merge(structure, params)(pictures))


def given(case):
    stored = golden("gemma4_unified")
    return Patches(*(jnp.asarray(stored[f"{case}/in/{name}"]) for name in ("pixel_values", "image_position_ids")))


def test_the_small_config_is_that_of_the_fixture():
    published = json.loads((FIXTURES / "gemma4_unified" / "config.json").read_text())["vision_config"]
    assert published["patch_size"] * published["pooling_kernel_size"] == SMALL.patch
    assert published["mm_embed_dim"] == published["output_proj_dims"] == SMALL.width
    assert (published["mm_posemb_size"], published["rms_norm_eps"]) == (SMALL.places, SMALL.norm_epsilon)


@pytest.mark.parametrize("case", ["two_images", "batch_right"])
def test_soft_tokens_equal_the_published_ones(encode, case):
    with jax.default_matmul_precision("highest"):
        soft, valid = encode(given(case))
    np.testing.assert_allclose(soft[valid], golden("gemma4_unified")[f"{case}/image_hidden_states"], atol=1e-4)


def test_padding_and_neighbours_change_nothing(encode):
    pictures = given("two_images")
    soft, valid = encode(pictures)
    noisy = np.where(pictures.valid[..., None], pictures.pixels, 50.0).astype(np.float32)
    longer = Patches(
        np.pad(noisy[::-1], ((0, 1), (0, 2), (0, 0))),
        np.pad(pictures.positions[::-1], ((0, 1), (0, 2), (0, 0)), constant_values=-1),
    )
    padded, padded_valid = encode(longer)
    assert jnp.isfinite(padded).all() and not padded_valid[2].any()
    for number in range(2):
        np.testing.assert_allclose(padded[number][padded_valid[number]], soft[1 - number][valid[1 - number]], atol=1e-5)


def test_bytes_are_fractions_of_255(encode):
    prepared = prepare(np.random.default_rng(0).integers(0, 256, (30, 41, 3), dtype=np.uint8), SMALL)
    assert soft_tokens(prepared, SMALL) == len(prepared.pixels) == 4
    one = jax.tree.map(lambda leaf: jnp.array(leaf)[None], prepared)
    soft, valid = encode(one)
    assert valid.shape == (1, 4) and valid.all()
    np.testing.assert_allclose(encode(one._replace(pixels=one.fractions))[0], soft, atol=1e-6)


def test_gradients_are_finite_and_reach_every_parameter(tower):
    structure, params = nnx.split(tower)

    def total(params):
        soft, valid = nnx.merge(structure, params)(given("two_images"))
        return jnp.where(valid[..., None], soft, 0.0).sum()

    gradients = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(jax.jit(jax.grad(total))(params)))
    for path, gradient in gradients:
        assert jnp.isfinite(gradient).all() and gradient.any(), path


def test_what_does_not_fit_is_refused():
    with pytest.raises(BadInput, match="too thin"):
        prepare(np.zeros((3, 30, 3), np.uint8), SMALL)
    with pytest.raises(BadInput, match="width is a whole number"):
        dataclasses.replace(SMALL, width=0)
