"""Exported folders in transformers: needs `pip install torch transformers`, and is left out where they are not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import scalar

from base_model.batch import Batch
from base_model.checkpoint import structure_of
from base_model.config import ModelConfig
from base_model.media import Media
from base_model.published.exporting import export_model
from reward.model import token_values

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(params=["gemma4", "gemma3"])
def model(request, tiny_model):
    """The tiny model without its encoder; as Gemma 3, its norms add one and values have none."""
    params = {name: part for name, part in tiny_model.params.items() if name != "vision"}
    config: ModelConfig = replace(tiny_model.config, vision=None)
    if request.param == "gemma3":
        layers = tuple(replace(layer, rope_fraction=1.0) for layer in config.layers)
        config = replace(config, norm_offset=1.0, value_norm=False, query_scale=0.5, layers=layers)
    return replace(tiny_model, config=config, params=params)


def rows(model):
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, model.config.vocab_size, (2, 17))
    positions = np.broadcast_to(np.arange(17), (2, 17))
    return jax.tree.map(jnp.asarray, Batch(tokens, np.ones((2, 17), int), positions, np.ones((2, 17), bool), Media()))


def theirs(name, folder, tokens):
    read, info = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    with torch.no_grad():
        return read.eval()(input_ids=torch.tensor(np.asarray(tokens, np.int64))).logits.numpy(), info


def test_an_exported_model_gives_the_same_logits(model, tmp_path):
    export_model(model, tmp_path / "out", dtype="float32", towers=False)
    batch = rows(model)
    decoder = nnx.merge(structure_of(model.config, model.tokenizer), model.params)
    hidden, _ = decoder(batch.tokens, batch.positions, batch.segments)
    found, info = theirs("AutoModelForCausalLM", tmp_path / "out", batch.tokens)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    np.testing.assert_allclose(found, decoder.logits(hidden), atol=1e-4)


def test_an_exported_reward_model_gives_the_same_scores(model, tmp_path):
    if not model.config.norm_offset:
        pytest.skip("transformers has the classifier for Gemma 3 alone")
    judge = replace(scalar(model), statistics={})
    export_model(judge, tmp_path / "out", dtype="float32", towers=False)
    batch = rows(model)
    values = token_values(structure_of(model.config, model.tokenizer), judge.params, batch)
    found, info = theirs("AutoModelForSequenceClassification", tmp_path / "out", batch.tokens)
    assert not info["missing_keys"] and list(info["unexpected_keys"]) == ["score.bias"]
    np.testing.assert_allclose(found[:, 0], values[:, -1] - judge.params["head"]["bias"], atol=1e-4)
