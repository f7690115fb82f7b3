"""Multi-query attention with per-head norms, rotary positions, masks by segment and window, and a key-value cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from base_model.config import LayerSpec, ModelConfig
from base_model.layers import RMSNorm, matmul, param, rms_norm, rotate

# Finite, so that a padding query, which sees no key at all, yields a uniform average and never a NaN.
MASKED = -1e30


class LayerCache(NamedTuple):
    """Keys and values of one layer, [B, S, K, D], written at slots 0, 1, ... as tokens arrive."""

    keys: Float[Array, "B S K D"]
    values: Float[Array, "B S K D"]


def attention_mask(
    query_slots: Int[Array, " T"],
    key_slots: Int[Array, " S"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    *,
    window: int | None,
    query_images: Int[Array, "B T"] | None = None,
    key_images: Int[Array, "B S"] | None = None,
) -> Bool[Array, "B T S"]:
    """Which keys each query sees: (causal OR same picture) AND same segment AND inside the window.

    Args:
        query_slots: index of each query in the row.
        key_slots: index of each key in the row.
        query_segments: which packed example each query belongs to; 0 is padding.
        key_segments: the same for the keys; 0 is padding or a slot not yet written.
        window: query - key must be below it; None sees everything.
        query_images: number of the picture each query belongs to, 0 for none; given with `key_images` only when
            soft tokens of one picture see each other.
        key_images: the same for the keys.
    """
    distance = query_slots[:, None] - key_slots[None, :]
    seen = (distance >= 0)[None]
    if query_images is not None and key_images is not None:
        seen = seen | ((query_images[:, :, None] == key_images[:, None, :]) & (query_images[:, :, None] > 0))
    if window is not None:
        seen = seen & (distance < window)[None]
    same = (query_segments[:, :, None] == key_segments[:, None, :]) & (key_segments[:, None, :] > 0)
    return seen & same


class Attention(nnx.Module):
    """Grouped-query attention of one layer; with one key-value head it is multi-query (Shazeer 2019)."""

    def __init__(self, spec: LayerSpec, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation; the norms on queries and keys start at one."""
        dim, heads, kv_heads, size = config.embed_dim, spec.heads, spec.kv_heads, spec.head_dim
        self.query = param(rngs.params(), (dim, heads * size), ("embed", "heads"), dim**-0.5)
        self.key = param(rngs.params(), (dim, kv_heads * size), ("embed", "kv_heads"), dim**-0.5)
        self.value = param(rngs.params(), (dim, kv_heads * size), ("embed", "kv_heads"), dim**-0.5)
        self.out = param(rngs.params(), (heads * size, dim), ("heads", "embed"), (heads * size) ** -0.5)
        self.query_norm = RMSNorm(size, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.key_norm = RMSNorm(size, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.spec, self.config, self.dtype = spec, config, dtype

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        cache: LayerCache | None,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """Attends to the row itself, or to the cache after writing the row's keys and values at `slot`."""
        spec, (batch, length, _) = self.spec, x.shape
        turn = {"theta": spec.rope_theta, "fraction": spec.rope_fraction, "scale": spec.rope_scale}
        split = lambda y, heads: y.reshape(batch, length, heads, spec.head_dim)  # noqa: E731
        query = split(matmul(x, self.query[...], self.dtype), spec.heads)
        key = split(matmul(x, self.key[...], self.dtype), spec.kv_heads)
        value = split(matmul(x, self.value[...], self.dtype), spec.kv_heads)
        query = rotate(self.query_norm(query), positions, **turn)
        key = rotate(self.key_norm(key), positions, **turn)
        if self.config.value_norm:
            value = rms_norm(value, None, self.config.norm_epsilon)
        if cache is not None:
            cache = LayerCache(
                jax.lax.dynamic_update_slice(cache.keys, key, (0, slot, 0, 0)),
                jax.lax.dynamic_update_slice(cache.values, value, (0, slot, 0, 0)),
            )
            key, value = cache
        # The query heads of a group stand beside one another as rows of one matrix product with their shared keys.
        group = spec.heads // spec.kv_heads
        query = query.reshape(batch, length, spec.kv_heads, group, spec.head_dim)
        scores = jnp.einsum("btkgd,bskd->bkgts", query, key) * self.config.query_scale
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), -1)
        mixed = jnp.einsum("bkgts,bskd->btkgd", weights, value).reshape(batch, length, -1)
        return matmul(mixed, self.out[...], self.dtype), cache
