"""Attention in encoders of pictures: every patch sees all patches of its picture."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from base_model.attention import LayerCache, Places, attend


def patch_attention(
    query: Float[Array, "N P H K"],
    key: Float[Array, "N P H K"],
    value: Float[Array, "N P H K"],
    valid: Bool[Array, "N P"],
    *,
    scale: float,
) -> Float[Array, "N P H K"]:
    """softmax(scale * q k) v over the patches that are there; many queries are taken in blocks, as in the decoder.

    Args:
        query: of each patch.
        key: of the same patches.
        value: of the same patches.
        valid: patches that are there; what others yield is finite and means nothing.
        scale: factor on the products.
    """
    there = valid.astype(jnp.int32)
    places = Places(jnp.arange(valid.shape[1]), there, images=there)
    return attend(query, LayerCache(key, value), places, places, window=None, scale=scale)
