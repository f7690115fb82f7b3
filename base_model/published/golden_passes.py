"""The passes of a model whose figures are compared: all at once with a look inside, through the cache, backwards."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from base_model.media import Media
from base_model.published.golden_towers import Stage, stages
from base_model.sampling import suppress


class Rows(NamedTuple):
    """What stands in a batch beside media."""

    tokens: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    segments: Int[np.ndarray, "B T"]


@partial(jax.jit, static_argnums=0)
def look_inside(
    structure: nnx.GraphDef, params: Any, rows: Rows, media: Media
) -> tuple[dict[str, Array], dict[str, Stage]]:
    """Embeddings with soft tokens in their places, what each layer makes of them, and the logits; encoders' stages."""
    decoder = nnx.merge(structure, params)
    x = decoder.embed(rows.tokens, media)
    states = [x, *decoder.hidden_states(x, *rows)]
    named = {f"hidden/{number:02d}": state for number, state in enumerate(states)}
    return named | {"logits": decoder.logits(states[-1])}, stages(decoder, media)


@partial(jax.jit, static_argnums=0)
def read_in_parts(
    structure: nnx.GraphDef, params: Any, x: Float[Array, "B T D"], rows: Rows, later: Int[Array, "B N"]
) -> tuple[Float[Array, "B T V"], Float[Array, "B N V"]]:
    """Logits of prompts read at once, and those from which each of some later tokens, read one by one, was chosen.

    Args:
        structure: of a Decoder.
        params: its parameters.
        x: embeddings of the prompts, with soft tokens in their places.
        rows: the prompts.
        later: the tokens after them.
    """
    decoder = nnx.merge(structure, params)
    hidden, cache = decoder.begin(x, *rows, slots=rows.tokens.shape[1] + later.shape[1])

    def step(carry: Any, token: Array) -> tuple[Any, Array]:
        cache, position = carry
        hidden, cache = decoder(token[:, None], position, jnp.ones_like(position), None, cache)
        return (cache, position + 1), hidden[:, 0]

    # The last token is chosen and never read.
    _, after = jax.lax.scan(step, (cache, rows.positions[:, -1:] + 1), later[:, :-1].T)
    return decoder.logits(hidden), decoder.logits(jnp.concatenate([hidden[:, -1:], after.swapaxes(0, 1)], 1))


def chosen(logits: Float[Array, "B N V"], unwanted: tuple[int, ...]) -> Int[Array, "B N"]:
    """The most likely tokens other than the unwanted ones."""
    return suppress(logits, unwanted).argmax(-1)


@partial(jax.jit, static_argnums=0)
def loss_and_gradients(
    structure: nnx.GraphDef, params: Any, rows: Rows, media: Media, labels: Int[Array, "B T"]
) -> tuple[Float[Array, ""], Any]:
    """Mean cross-entropy of labels that are not negative, each predicted one token before; norms of its gradients."""

    def loss(params: Any) -> Array:
        decoder = nnx.merge(structure, params)
        hidden, _ = decoder(*rows, media)
        likelihoods = jax.nn.log_softmax(decoder.logits(hidden[:, :-1]))
        wanted = labels[:, 1:]
        own = jnp.take_along_axis(likelihoods, jnp.maximum(wanted, 0)[..., None], -1)[..., 0]
        return -jnp.where(wanted >= 0, own, 0).sum() / (wanted >= 0).sum()

    value, gradients = jax.value_and_grad(loss)(params)
    return value, jax.tree.map(jnp.linalg.norm, gradients)
