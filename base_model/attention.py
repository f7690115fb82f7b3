"""Multi-query attention with per-head norms, rotary positions, and masks by segment and window."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from base_model.cache import LayerCache, Places, Ring, attended, key_places
from base_model.config import LayerSpec, ModelConfig
from base_model.layers import RMSNorm, matmul, param, rms_norm, rotate

# Finite, so that a padding query, which sees no key at all, yields a uniform average and never a NaN.
MASKED = -1e30

# Longer rows of queries are attended to in blocks: 32,768 x 32,768 scores of eight heads would take 32 GiB.
WHOLE, BLOCK = 1024, 256


def attention_mask(queries: Places, keys: Places, *, window: int | None) -> Bool[Array, "B T S"]:
    """Which keys each query sees: (causal OR same picture) AND same segment AND inside the window.

    Args:
        queries: T of them.
        keys: S of them.
        window: query - key must be below it; None sees everything.
    """
    distance = queries.slots[:, None] - keys.slots[None, :]
    seen = (distance >= 0)[None]
    if queries.images is not None and keys.images is not None:
        seen = seen | ((queries.images[:, :, None] == keys.images[:, None, :]) & (queries.images[:, :, None] > 0))
    if window is not None:
        seen = seen & (distance < window)[None]
    same = (queries.segments[:, :, None] == keys.segments[:, None, :]) & (keys.segments[:, None, :] > 0)
    return seen & same


def attend(
    query: Float[Array, "B T H D"],
    cache: LayerCache | Ring,
    queries: Places,
    keys: Places,
    *,
    window: int | None,
    scale: float,
    whole: int = WHOLE,
    block: int = BLOCK,
) -> Float[Array, "B T H D"]:
    """softmax(scale * q k + mask) v, each query head with the key-value head of its group.

    Up to `whole` queries are one product. More are taken `block` at a time, in the backward pass too, which computes
    the scores again: only those of one block exist at once. Where a row sees itself through a window, a block is given
    the keys that it can see and no others.
    """
    batch, length, heads, size = query.shape
    if isinstance(cache, Ring):
        return _attend_alone(query, cache, attention_mask(queries, keys, window=window), scale)
    if length <= whole:
        return _attend(query, queries, cache, keys, window=window, scale=scale)
    filled = -length % block

    def blocks(x: Array, axis: int) -> Array:
        x = jnp.pad(x, [(0, filled if i == axis else 0) for i in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:axis], -1, block, *x.shape[axis + 1 :]), axis, 0)

    parts = Places(
        blocks(queries.slots, 0),
        blocks(queries.segments, 1),
        None if queries.images is None else blocks(queries.images, 1),
    )
    before = length if window is None or keys is not queries or keys.images is not None else window
    reach = min(before + block, length)

    @jax.checkpoint
    def attend_block(part: tuple[Array, Places, Array]) -> Array:
        query, places, first = part
        # A slice that would end behind the row is moved inside, and still holds all that is seen.
        near = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, jnp.maximum(first - before, 0), reach, axis)  # noqa: E731
        seen, there = cache, keys
        if reach < length:
            seen, there = LayerCache(*(near(x, 1) for x in cache)), Places(near(keys.slots, 0), near(keys.segments, 1))
        return _attend(query, places, seen, there, window=window, scale=scale)

    firsts = jnp.arange(0, length, block)
    mixed = jax.lax.map(attend_block, (blocks(query, 1), parts, firsts))
    return jnp.moveaxis(mixed, 0, 1).reshape(batch, -1, heads, size)[:, :length]


def _attend(
    query: Array, queries: Places, cache: LayerCache, keys: Places, *, window: int | None, scale: float
) -> Array:
    # The query heads of a group stand beside one another as rows of one matrix product with their shared keys.
    batch, length, heads, size = query.shape
    shared = cache.keys.shape[2]
    query = query.reshape(batch, length, shared, heads // shared, size)
    scores = jnp.einsum("btkgd,bskd->bkgts", query, cache.keys) * scale
    mask = attention_mask(queries, keys, window=window)
    weights = jax.nn.softmax(jnp.where(mask[:, None, None], scores, MASKED), -1)
    return jnp.einsum("bkgts,bskd->btkgd", weights, cache.values).reshape(batch, length, heads, size)


def _attend_alone(query: Array, ring: Ring, mask: Array, scale: float) -> Array:
    """The same for one query a row: what stands in a ring is read as it lies there."""
    count = len(ring.keys) // len(query)
    scores = query.reshape(len(ring.keys), -1, query.shape[-1]) @ ring.keys * scale
    weights = jax.nn.softmax(jnp.where(jnp.repeat(mask, count, 0), scores, MASKED), -1)
    return (weights @ ring.values).reshape(query.shape)


class Context(NamedTuple):
    """What all layers read alike.

    Attributes:
        positions: of the tokens, each in its own example.
        queries: where the tokens stand.
        remembered: segments of the tokens before them, a cache's; None where the row stands alone.
    """

    positions: Int[Array, "B T"]
    queries: Places
    remembered: Int[Array, "B S"] | None = None


class Attention(nnx.Module):
    """Grouped-query attention of one layer; with one key-value head it is multi-query (Shazeer 2019)."""

    def __init__(self, spec: LayerSpec, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation; the norms on queries and keys start at one."""
        dim, heads, kv_heads, size = config.embed_dim, spec.heads, spec.kv_heads, spec.head_dim
        self.query = param(rngs.params(), (dim, heads * size), ("embed", "heads"), dim**-0.5)
        if spec.kv_source is None:
            self.key = param(rngs.params(), (dim, kv_heads * size), ("embed", "kv_heads"), dim**-0.5)
            if not spec.key_is_value:
                self.value = param(rngs.params(), (dim, kv_heads * size), ("embed", "kv_heads"), dim**-0.5)
            self.key_norm = RMSNorm(size, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.out = param(rngs.params(), (heads * size, dim), ("heads", "embed"), (heads * size) ** -0.5)
        self.query_norm = RMSNorm(size, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.spec, self.config, self.dtype = spec, config, dtype

    def __call__(
        self,
        x: Float[Array, "B T D"],
        context: Context,
        cache: Ring | None = None,
        shared: LayerCache | Ring | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | Ring]:
        """Attends to the row itself, or to the cache and the row.

        Args:
            x: the row.
            context: see Context.
            cache: what the layer read before.
            shared: what the layer that this one borrows from attended to; the row has no keys and values here then.

        Returns:
            The mixed values, and the keys and values attended to.
        """
        spec = self.spec
        query = self._turned(self.query_norm(self._heads(x, self.query, spec.heads)), context)
        seen = self._seen(x, context, cache) if shared is None else shared
        queries = keys = context.queries
        if context.remembered is not None:
            keys = key_places(context.remembered, queries, seen.values.shape[1])
        if self.config.image_attention == "bidirectional-local" and spec.window is None:
            queries, keys = queries._replace(images=None), keys._replace(images=None)
        mixed = attend(query, seen, queries, keys, window=spec.window, scale=self.config.query_scale)
        return matmul(mixed.reshape(*x.shape[:2], -1), self.out[...], self.dtype), seen

    def _seen(self, x: Float[Array, "B T D"], context: Context, cache: Ring | None) -> LayerCache | Ring:
        """The row's keys and values, with what was read before if there is anything."""
        key = self._heads(x, self.key, self.spec.kv_heads)
        value = key if self.spec.key_is_value else self._heads(x, self.value, self.spec.kv_heads)
        key = self._turned(self.key_norm(key), context)
        if self.config.value_norm:
            value = rms_norm(value, None, self.config.norm_epsilon)
        own = LayerCache(key, value)
        return own if cache is None else attended(cache, own, context.queries.slots[0])

    def _heads(self, x: Float[Array, "B T N"], kernel: nnx.Param, count: int) -> Float[Array, "B T H D"]:
        return matmul(x, kernel[...], self.dtype).reshape(*x.shape[:2], count, self.spec.head_dim)

    def _turned(self, x: Float[Array, "B T H D"], context: Context) -> Float[Array, "B T H D"]:
        spec = self.spec
        return rotate(
            x, context.positions, theta=spec.rope_theta, fraction=spec.rope_fraction, scale=spec.rope_scale
        )
