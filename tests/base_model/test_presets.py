import re
from dataclasses import replace
from math import prod
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from base_model.block import Block
from base_model.per_layer import PerLayerEmbedding
from base_model.presets import SIZES
from base_model.towers import TOWERS

ROOT = Path(__file__).resolve().parents[2]


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


# As the models were published: exactly, and in billions as their cards have them rounded.
EXACT = {
    "gemma-3-270m": 268_098_176, "gemma-3-1b": 999_885_952, "gemma-3-4b": 4_300_079_472,
    "gemma-3-12b": 12_187_325_040, "gemma-3-27b": 27_432_406_640,
}  # fmt: skip
BILLIONS = {
    "nano-1": 1.8, "nano-2": 3.25, "gemma-4-e2b": 5.1, "gemma-4-e4b": 8.0, "gemma-4-12b": 11.95,
    "gemma-4-26b-a4b": 25.2, "gemma-4-31b": 30.7,
}  # fmt: skip
# Their cards count the encoder by itself.
WITHOUT_ENCODER = ("gemma-4-26b-a4b", "gemma-4-31b")
TABLE = dict(re.findall(r"^\| `([\w-]+)` \| ([\d,]+) \|", (ROOT / "docs" / "tpu.md").read_text("utf-8"), re.MULTILINE))


def test_the_table_has_every_size_with_a_name():
    assert list(TABLE) == list(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_size_has_as_many_parameters_as_the_table_and_its_publisher_say(name):
    config = SIZES[name]()
    found = parameters(config)
    assert f"{found:,}" == TABLE[name]
    assert found == EXACT.get(name, found)
    if name in BILLIONS:
        text = parameters(replace(config, vision=None, audio=None)) if name in WITHOUT_ENCODER else found
        assert text / 1e9 == pytest.approx(BILLIONS[name], rel=0.01)
