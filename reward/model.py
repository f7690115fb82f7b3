"""The reward model: a decoder with one number for each token, read at the last token of a text.

The critic of PPO is the same model read at every token.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from base_model.batch import Batch, bucket, pack, require_media
from base_model.checkpoint import HEAD_AXES, LanguageModel, build, logical_axes, structure_of
from base_model.config import ModelConfig
from base_model.interleave import Example
from base_model.media import Media, count, room
from base_model.towers import room_of_one
from training.packing import first_fit


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
def batch_values(structure: nnx.GraphDef, params: Any, batch: Batch) -> Float[Array, "B T"]:
    """token_values, compiled."""
    return token_values(structure, params, batch)


# Rows of one shape for nearly all texts: each further shape would be compiled.
WIDTH, PICTURES = 256, 4


def score(
    model: LanguageModel,
    examples: Sequence[Example],
    *,
    batch_size: int = 16,
    packed: bool = True,
    dtype: DTypeLike = jnp.float32,
) -> np.ndarray:
    """Raw scores of texts, float64 [N] in the order given; padding and company change nothing beyond rounding.

    Args:
        model: a reward model.
        examples: the texts.
        batch_size: rows at the same time.
        packed: several texts share a row, without seeing each other; else each has a row of its own, and rows are as
            narrow as they can be.
        dtype: of the matrix products.

    Raises:
        BadInput: when a medium of a text is missing.
    """
    require_media(examples, model.tokenizer.soft_tokens, model.config)
    structure = structure_of(model.config, model.tokenizer, dtype=dtype)
    longest = max(map(len, examples), default=0)
    # A model that sees gets blank pictures even where there are none: else there would be a shape for that, too.
    slots = lambda leaf: jax.ShapeDtypeStruct((PICTURES if packed else 1, *leaf.shape[1:]), leaf.dtype)  # noqa: E731
    room_at_least = jax.tree.map(slots, room_of_one(model.config))
    media = room([[example.media] for example in examples], at_least=room_at_least)
    width = bucket(longest, WIDTH if packed else 64)
    scores = np.zeros(len(examples))
    for rows in _rows(examples, width, media, batch_size=batch_size, packed=packed):
        batch = pack([[examples[i] for i in row] for row in rows], width, media)
        values = np.asarray(batch_values(structure, model.params, batch))
        for row, chosen in enumerate(rows):
            ends = np.cumsum([len(examples[i]) for i in chosen], dtype=int) - 1
            scores[chosen] = values[row, ends]
    return scores


def _rows(
    examples: Sequence[Example], width: int, media: Media, *, batch_size: int, packed: bool
) -> Iterator[list[list[int]]]:
    """Which texts stand in the rows of each batch, the longest first; batches are filled up with empty rows."""
    order = np.argsort([-len(example) for example in examples], kind="stable")
    slots = [0 if inputs is None else jax.tree.leaves(inputs)[0].shape[0] for inputs in media]
    sizes = [(len(examples[i]), *count([examples[i].media])) for i in order]
    together = first_fit(sizes, (width, *slots)) if sizes and packed else [[i] for i in range(len(order))]
    rows = [[int(order[i]) for i in row] for row in together]
    for first in range(0, len(rows), batch_size):
        chosen = rows[first : first + batch_size]
        yield chosen + [[]] * (batch_size - len(chosen))
