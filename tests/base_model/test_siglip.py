import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_tower import FIXTURES, golden, golden_tower

from base_model.config import LayerSpec, ModelConfig
from base_model.published.siglip import siglip
from base_model.siglip import Siglip, SiglipConfig, prepare, soft_tokens
from training.errors import BadInput

HIGHEST = jax.default_matmul_precision("highest")
SMALL = SiglipConfig(image_size=56, patch=14, width=48, layers=2, heads=4, mlp_dim=96, grid=2)


@pytest.fixture(scope="module")
def decoder_config():
    layer = LayerSpec(heads=4, kv_heads=2, head_dim=24, mlp_dim=128)
    return ModelConfig(vocab_size=320, embed_dim=64, layers=(layer,))


@pytest.fixture(scope="module")
def tower(decoder_config):
    make = lambda: Siglip(SMALL, decoder_config, rngs=nnx.Rngs(0))  # noqa: E731
    return golden_tower("gemma3", make, siglip(SMALL), ("vision_tower.", "multi_modal_projector."))


@pytest.fixture(scope="module")
def encode(tower):
    structure, params = nnx.split(tower)

    @jax.jit
    def encode(images):
        tower = nnx.merge(structure, params)
        return tower.encode(images), tower(images)[0]

    return encode


@pytest.fixture(scope="module")
def stored():
    return golden("gemma3")


def channels_last(images):
    return jnp.asarray(images.transpose(0, 2, 3, 1))


def test_the_small_config_is_that_of_the_fixture():
    published = json.loads((FIXTURES / "gemma3" / "config.json").read_text())
    vision = published["vision_config"]
    same = {
        "hidden_size": SMALL.width, "image_size": SMALL.image_size, "intermediate_size": SMALL.mlp_dim,
        "layer_norm_eps": SMALL.norm_epsilon, "num_attention_heads": SMALL.heads, "num_hidden_layers": SMALL.layers,
        "patch_size": SMALL.patch, "hidden_act": "gelu_pytorch_tanh",
    }  # fmt: skip
    assert {name: vision[name] for name in same} == same
    assert published["mm_tokens_per_image"] == SMALL.grid**2


def test_the_tower_equals_the_published_one(encode, stored):
    cases = "two_images", "batch_right"
    images = [stored["tower/pixel_values"], *(stored[f"{case}/in/pixel_values"] for case in cases)]
    with HIGHEST:
        hidden, soft = encode(channels_last(np.concatenate(images)))
    np.testing.assert_allclose(hidden[:2], stored["tower/siglip_last_hidden"], atol=1e-4)
    wanted = [stored["tower/soft_tokens"], *(stored[f"{case}/image_hidden_states"] for case in cases)]
    np.testing.assert_allclose(soft, np.concatenate(wanted), atol=1e-4)


def test_a_picture_equals_the_published_preprocessing(encode):
    stored = golden("gemma3", "preprocess")
    values = channels_last(stored["pixel_values"])
    picture = prepare(stored["image_u8"], SMALL)
    np.testing.assert_allclose(picture / 127.5 - 1, values[0], atol=1e-6)
    assert soft_tokens(picture, SMALL) == 4
    neighbour = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
    _, soft = encode(jnp.array([neighbour, picture]))
    np.testing.assert_allclose(soft[1], encode(values)[1][0], atol=1e-5)


def test_gradients_are_finite_and_reach_every_parameter(decoder_config):
    config = dataclasses.replace(SMALL, layers=1)
    images = jnp.array([np.zeros((56, 56, 3)), np.eye(56)[..., None].repeat(3, -1) * 255], jnp.uint8)

    @jax.jit
    def gradient():
        structure, params = nnx.split(Siglip(config, decoder_config, rngs=nnx.Rngs(0)))
        total = lambda params: jnp.square(nnx.merge(structure, params)(images)[0] - 1).sum()  # noqa: E731
        return nnx.to_pure_dict(jax.grad(total)(params))

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient()):
        moved_by_nothing = [key.key for key in path[-2:]] == [
            "key",
            "bias",
        ]  # it adds the same to all of a query's scores
        assert jnp.isfinite(leaf).all() and (leaf.any() or moved_by_nothing), path


def test_the_published_size(decoder_config):
    shapes = nnx.to_pure_dict(
        jax.eval_shape(lambda: nnx.state(Siglip(SiglipConfig(), decoder_config, rngs=nnx.Rngs(0))))
    )
    shapes.pop("project")
    shapes.pop("soft_norm")
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 416_866_032


def test_sizes_that_do_not_divide_are_refused():
    for wrong, message in (
        ({"patch": 15}, "56 pixels in patches of 15 do not divide into 2 soft tokens a side"),
        ({"grid": 3}, "do not divide into 3"),
        ({"heads": 5}, r"width \(48\) must be a multiple of heads \(5\)"),
        ({"layers": 0}, "layers is a whole number"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon is a number"),
    ):
        with pytest.raises(BadInput, match=message):
            dataclasses.replace(SMALL, **wrong)
