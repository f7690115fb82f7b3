"""The reward model: a decoder with one number for each token, read at the last token of a text.

The critic of PPO is the same model read at every token.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from base_model.batch import Batch, bucket, pack, require_media
from base_model.checkpoint import HEAD_AXES, LanguageModel, build, logical_axes, structure_of
from base_model.config import ModelConfig
from base_model.interleave import Example
from base_model.media import room
from base_model.towers import room_of_one


def initial_params(model: LanguageModel, *, seed: int) -> Any:
    """The language model's trunk with a fresh head."""
    return {"trunk": model.params, "head": head_params(model.config, seed=seed)}


def head_params(config: ModelConfig, *, seed: int) -> dict[str, Array]:
    """A fresh head: weights ~ N(0, 1 / sqrt(D + 1)), bias 0."""
    weight = jax.random.normal(jax.random.key(seed), (config.embed_dim,)) * (config.embed_dim + 1) ** -0.5
    return {"weight": weight, "bias": jnp.zeros(())}


def scalar_logical_axes(model: LanguageModel) -> Any:
    """Names of the axes of a scalar model's parameters."""
    trunk = logical_axes(nnx.eval_shape(lambda: build(model.config, model.tokenizer)))
    return {"trunk": trunk, "head": HEAD_AXES}


def token_values(structure: nnx.GraphDef, params: Any, batch: Batch) -> Float[Array, "B T"]:
    """The head's output on the final-norm hidden state of every token."""
    hidden, _ = nnx.merge(structure, params["trunk"])(batch.tokens, batch.positions, batch.segments, batch.media)
    return hidden @ params["head"]["weight"] + params["head"]["bias"]


def segment_scores(values: Float[Array, "B T"], segments: Int[Array, "B T"], count: int) -> Float[Array, "B S"]:
    """The value at the last token of each of the segments 1 to `count`, found from the mask, 0 where there is none."""
    following = jnp.pad(segments[:, 1:], ((0, 0), (0, 1)))
    is_last = (segments != following) & (segments > 0)
    place = jax.nn.one_hot(jnp.where(is_last, segments - 1, -1), count)
    return jnp.einsum("bt,bts->bs", jnp.where(is_last, values, 0), place)


@partial(jax.jit, static_argnums=0)
def score_batch(structure: nnx.GraphDef, params: Any, batch: Batch) -> Float[Array, " B"]:
    """The score of each row, which holds one text."""
    return segment_scores(token_values(structure, params, batch), jnp.asarray(batch.segments), 1)[:, 0]


def score(model: LanguageModel, examples: Sequence[Example], *, batch_size: int = 64) -> np.ndarray:
    """Raw scores of texts, float64 [N] in the order given; padding and company change nothing beyond rounding.

    Raises:
        BadInput: when a medium of a text is missing.
    """
    require_media(examples, model.tokenizer.soft_tokens, model.config)
    structure = structure_of(model.config, model.tokenizer)
    order = np.argsort([len(example) for example in examples], kind="stable")
    scores = np.zeros(len(examples))
    # A model that sees gets a blank picture even where there is none: each further shape would be compiled.
    media = room([[example.media] for example in examples], at_least=room_of_one(model.config))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        width = bucket(max(len(examples[i]) for i in chosen))
        rows = [[examples[i]] for i in chosen] + [[]] * (batch_size - len(chosen))
        batch = pack(rows, width, media)
        scores[chosen] = np.asarray(score_batch(structure, model.params, batch))[: len(chosen)]
    return scores
