import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_tower import FIXTURES, golden, golden_tower

from base_model.config import LayerSpec, ModelConfig
from base_model.gemma4_vision import Gemma4Vision, Gemma4VisionConfig, axial_rotate, pool, prepare, soft_tokens
from base_model.patch_grid import Patches
from base_model.published.gemma4_vision import gemma4_vision
from training.errors import BadInput

HIGHEST = jax.default_matmul_precision("highest")
CLIPPED = Gemma4VisionConfig(
    patch=4, width=48, layers=2, heads=3, head_dim=16, mlp_dim=64, places=64, max_soft_tokens=70
)
STANDARDISED = dataclasses.replace(CLIPPED, clipped=False, standardised=True)
SMALL = {"gemma4_e": CLIPPED, "gemma4_dense": STANDARDISED}


@pytest.fixture(scope="module")
def decoder_config():
    layer = LayerSpec(heads=4, kv_heads=1, head_dim=16, mlp_dim=96)
    return ModelConfig(vocab_size=320, embed_dim=64, layers=(layer,))


@pytest.fixture(scope="module", params=SMALL)
def fixture(request):
    return request.param


@pytest.fixture(scope="module")
def tower(fixture, decoder_config):
    config = SMALL[fixture]
    make = lambda: Gemma4Vision(config, decoder_config, rngs=nnx.Rngs(0))  # noqa: E731
    return golden_tower(fixture, make, gemma4_vision(config), ("vision_tower.", "embed_vision."))


@pytest.fixture(scope="module")
def encode(tower):
    structure, params = nnx.split(tower)

    @jax.jit
    def encode(pictures):
        tower = nnx.merge(structure, params)
        return tower.encode(pictures)[0], *tower(pictures)

    return encode


@pytest.fixture(scope="module")
def stored(fixture):
    return golden(fixture)


def given(stored, *cases):
    return Patches(*(
        jnp.concatenate([stored[f"{case}/in/{name}"] for case in cases])
        for name in ("pixel_values", "image_position_ids")
    ))  # fmt: skip


def test_the_small_config_is_that_of_the_fixture(fixture):
    published = json.loads((FIXTURES / fixture / "config.json").read_text())["vision_config"]
    config = SMALL[fixture]
    same = {
        "hidden_size": config.width, "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads, "head_dim": config.head_dim, "intermediate_size": config.mlp_dim,
        "patch_size": config.patch, "pooling_kernel_size": config.pool, "position_embedding_size": config.places,
        "use_clipped_linears": config.clipped, "standardize": config.standardised, "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": {"rope_theta": config.rope_theta, "rope_type": "axial"},
        "hidden_activation": "gelu_pytorch_tanh", "attention_bias": False,
    }  # fmt: skip
    assert {name: published[name] for name in same} == same


def test_the_tower_equals_the_published_one(encode, stored):
    with HIGHEST:
        hidden, soft, valid = encode(given(stored, "two_images", "batch_right"))
    assert valid.sum(1).tolist()[:2] == [6, 3]
    np.testing.assert_allclose(hidden[:2][valid[:2]], stored["tower/vision_last_hidden"], atol=1e-4)
    np.testing.assert_allclose(soft[:2][valid[:2]], stored["tower/image_soft_tokens"], atol=1e-4)
    np.testing.assert_allclose(soft[2:][valid[2:]], stored["batch_right/image_hidden_states"], atol=1e-4)


def test_padding_order_and_neighbours_change_nothing(encode, stored):
    pictures = given(stored, "two_images", "batch_right")
    order = np.random.default_rng(0).permutation(72)
    noisy = np.where(pictures.valid[..., None], pictures.pixels, 50.0).astype(np.float32)
    # The other way round, a blank one before them, further patches that are not there, and all patches shuffled.
    padded = Patches(
        np.pad(noisy[::-1], ((1, 0), (0, 18), (0, 0)))[:, order],
        np.pad(pictures.positions[::-1], ((1, 0), (0, 18), (0, 0)), constant_values=-1)[:, order],
    )
    with HIGHEST:
        _, soft, valid = encode(pictures)
        _, longer, longer_valid = encode(padded)
    assert not longer_valid[0].any() and jnp.isfinite(longer).all()
    for number in range(len(soft)):
        np.testing.assert_allclose(
            longer[-1 - number][longer_valid[-1 - number]], soft[number][valid[number]], atol=1e-5
        )


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (1, 1), (840, 840)])
def test_a_picture_has_as_many_squares_of_patches_as_soft_tokens(shape):
    prepared = prepare(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8), CLIPPED)
    count = soft_tokens(prepared, CLIPPED)
    assert 49 < count <= 70 and prepared.positions.shape == (9 * count, 2)
    values = jnp.zeros((1, 9 * count, 1)) + 1.0
    pooled, valid = pool(values, jnp.array(prepared.positions)[None], 3)
    assert valid.shape == (1, count) and valid.all()
    np.testing.assert_allclose(pooled, 1.0, rtol=1e-6)


def test_gradients_are_finite_and_leave_stored_numbers_alone(decoder_config):
    config = dataclasses.replace(CLIPPED, layers=1, standardised=True)
    rng = np.random.default_rng(0)
    positions = np.full((2, 18, 2), -1, np.int32)
    positions[0] = [(column, row) for row in range(3) for column in range(6)]  # the second picture is a blank slot
    pictures = Patches(jnp.array(rng.random((2, 18, 48), np.float32)), jnp.array(positions))

    @jax.jit
    def gradient():
        structure, params = nnx.split(Gemma4Vision(config, decoder_config, rngs=nnx.Rngs(0)))

        def total(params):
            soft, valid = nnx.merge(structure, params)(pictures)
            return jnp.where(valid[..., None], soft, 0.0).sum()

        return nnx.to_pure_dict(jax.grad(total)(params))

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient()):
        assert jnp.isfinite(leaf).all(), path
        name = str(path[-1].key)
        assert bool(leaf.any()) != (name.endswith(("_min", "_max")) or name in ("shift", "scale")), path


def test_pooling_equals_a_naive_mean():
    rng = np.random.default_rng(0)
    x, image = rng.normal(size=(1, 36, 5)).astype(np.float32), np.zeros((4, 6, 5), np.float32)
    positions = np.full((1, 36, 2), -1, np.int32)
    positions[0, 6:30] = [(column, row) for row in range(4) for column in range(6)]
    for values, (column, row) in zip(x[0, 6:30], positions[0, 6:30], strict=True):
        image[row, column] = values
    pooled, valid = pool(jnp.array(x), jnp.array(positions), 2)
    assert valid.tolist() == [[True] * 6 + [False] * 3]
    means = [image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((0, 1)) for i in range(2) for j in range(3)]
    np.testing.assert_allclose(pooled[0, :6], means, atol=1e-6)
    np.testing.assert_array_equal(pooled[0, 6:], 0)


def test_products_of_rotated_heads_depend_on_distances_alone():
    rng = np.random.default_rng(0)
    query, key = jnp.array(rng.normal(size=(2, 1, 1, 1, 8)), jnp.float32)

    def product(from_, to):
        place = lambda position: jnp.array([[position]])  # noqa: E731
        return jnp.vdot(axial_rotate(query, place(from_), theta=100.0), axial_rotate(key, place(to), theta=100.0))

    np.testing.assert_allclose(product((2, 3), (7, 4)), product((12, 1), (17, 2)), atol=1e-5)
    assert abs(product((2, 3), (7, 4)) - product((3, 2), (4, 7))) > 1e-2
    assert abs(product((2, 3), (7, 4)) - product((2, 3), (7, 5))) > 1e-2


def test_the_published_sizes(decoder_config):
    large = Gemma4VisionConfig(
        width=1152, mlp_dim=4304, layers=27, heads=16, head_dim=72, clipped=False, standardised=True
    )
    for config, wanted in ((Gemma4VisionConfig(), 167_365_056), (large, 569_550_384)):
        make = lambda config=config: nnx.state(Gemma4Vision(config, decoder_config, rngs=nnx.Rngs(0)))  # noqa: E731
        shapes = nnx.to_pure_dict(jax.eval_shape(make))
        shapes.pop("project")
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == wanted


def test_sizes_that_cannot_be_are_refused():
    for wrong in ({"head_dim": 18}, {"places": 0}, {"max_soft_tokens": 0}, {"rope_theta": float("nan")}):
        with pytest.raises(BadInput):
            dataclasses.replace(CLIPPED, **wrong)
