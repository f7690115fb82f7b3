from dataclasses import replace
from math import prod

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from base_model import presets
from base_model.block import Block
from base_model.per_layer import PerLayerEmbedding
from base_model.towers import TOWERS


def count(make):
    """Parameters of a module, without allocating it."""
    state = nnx.state(nnx.eval_shape(make), nnx.Param)
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(state))


def parameters(config):
    """Parameters of a model; layers of one shape are counted once and multiplied."""
    options = lambda: {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}  # noqa: E731
    total = config.vocab_size * config.embed_dim + config.embed_dim
    kinds = [replace(layer, kv_source=layer.kv_source and 0) for layer in config.layers]
    for kind in set(kinds):
        total += kinds.count(kind) * count(lambda kind=kind: Block(kind, config, **options()))
    if config.per_layer_dim:
        total += count(lambda: PerLayerEmbedding(config, **options()))
    for tower in filter(None, (config.vision, config.audio)):
        total += count(lambda tower=tower: TOWERS[type(tower)].encoder(tower, config, **options()))
    return total


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        (presets.gemma_3_270m, 268_098_176),
        (presets.gemma_3_1b, 999_885_952),
        (presets.gemma_3_4b, 4_300_079_472),
        (presets.gemma_3_12b, 12_187_325_040),
        (presets.gemma_3_27b, 27_432_406_640),
    ],
)
def test_gemma_3_has_as_many_parameters_as_published(preset, published):
    assert parameters(preset()) == published


@pytest.mark.parametrize(
    ("preset", "billions"),
    [
        (presets.nano_1, 1.79),
        (presets.nano_2, 3.25),
        (presets.pro, 47),
        (presets.ultra, 366),
        (presets.gemma_4_e2b, 5.1),
        (presets.gemma_4_e4b, 8.0),
        (presets.gemma_4_12b, 12),
        (presets.gemma_4_26b_a4b, 25.8),
        (presets.gemma_4_31b, 31),
    ],
)
def test_other_sizes_are_what_their_names_say(preset, billions):
    assert parameters(preset()) / 1e9 == pytest.approx(billions, rel=0.03)
