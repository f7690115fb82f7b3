"""Attention of the sound encoder: a frame sees itself and what came shortly before it, by relative positions."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from base_model.attention import MASKED


def local_attention(
    query: Float[Array, "N frames H K"],
    key: Float[Array, "N frames H K"],
    value: Float[Array, "N frames H K"],
    relative: Float[Array, "window H K"],
    valid: Bool[Array, "N frames"],
    *,
    cap: float,
) -> Float[Array, "N frames H K"]:
    """softmax_j(cap tanh(q_i (k_j + r_(i-j)) / cap)) v_j over the valid frames j with 0 <= i - j < window.

    The relative positions are those of Transformer-XL (Dai et al. 2019, without its biases). Frames are taken in blocks
    of `window`, each of which sees itself and the block before it, so that the cost grows with the length and not with
    its square.

    Args:
        query: scaled already.
        key: of the same frames.
        value: of the same frames.
        relative: the key of each distance, from 0.
        valid: frames that are there; what others yield is finite and means nothing.
        cap: soft cap on the logits.
    """
    count, length, heads, size = query.shape
    window = len(relative)

    def blocks(x: Array) -> Array:
        x = jnp.pad(x, [(0, -length % window if axis == 1 else 0) for axis in range(x.ndim)])
        return x.reshape(count, -1, window, *x.shape[2:])

    def with_block_before(x: Array) -> Array:
        before = jnp.pad(x, [(0, 0), (1, 0), *[(0, 0)] * (x.ndim - 2)])[:, :-1]
        return jnp.concatenate([before, x], 2)

    query, key, value, valid = blocks(query), *(with_block_before(blocks(x)) for x in (key, value, valid))
    distance = window + np.arange(window)[:, None] - np.arange(2 * window)
    by_distance = relative[distance.clip(0, window - 1)]
    scores = jnp.einsum("nbqhk,nbshk->nbhqs", query, key) + jnp.einsum("nbqhk,qshk->nbhqs", query, by_distance)
    seen = valid[:, :, None, None] & ((distance >= 0) & (distance < window))
    weights = jax.nn.softmax(jnp.where(seen, cap * jnp.tanh(scores / cap), MASKED), -1)
    return jnp.einsum("nbhqs,nbshk->nbqhk", weights, value).reshape(count, -1, heads, size)[:, :length]


def sinusoids(count: int, width: int) -> Float[np.ndarray, "count width"]:
    """sin(d f) beside cos(d f) of each distance d from 0, at width / 2 frequencies f from 1 to 1/10,000."""
    frequencies = np.geomspace(1, 1e-4, width // 2)
    angles = np.arange(count)[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)
