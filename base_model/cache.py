"""What a decoder remembers of the tokens it has read: keys and values in rings.

Token number t of a row stands at slot t % S of a ring of S slots. The rings of layers without a window hold all that
will be read; those of layers with one hold no more than the window, and each new token takes the oldest one's slot.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from base_model.config import LayerSpec, ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer, [B, S, K, D]: in rings, or of tokens one after another."""

    keys: Float[Array, "B S K D"]
    values: Float[Array, "B S K D"]


class Cache(NamedTuple):
    """Rows that can be read on.

    Attributes:
        layers: a ring of each layer; None for one that reads the keys of another.
        segments: ring of each token's packed example, 0 for padding and for slots not yet taken; no layer's is longer.
        length: tokens read so far, padding among them: the number of the next one. Rows count alike.
    """

    layers: tuple[LayerCache | None, ...]
    segments: Int[Array, "B S"]
    length: Int[Array, ""]


class Places(NamedTuple):
    """Where queries or keys stand.

    Attributes:
        slots: number of each in the row.
        segments: which packed example each belongs to; 0 is padding, or a slot not yet taken.
        images: number of the picture each belongs to, 0 for none; given, for queries and keys alike, only when soft
            tokens of one picture see each other.
    """

    slots: Int[Array, " T"]
    segments: Int[Array, "B T"]
    images: Int[Array, "B T"] | None = None


def start(config: ModelConfig, seen: Sequence[LayerCache], segments: Int[Array, "B T"], slots: int) -> Cache:
    """The cache of rows that have been read from their beginning and will be at most `slots` tokens long."""

    def rings(number: int, spec: LayerSpec) -> LayerCache | None:
        size = _size(config, number, spec, slots)
        return LayerCache(*(_ring(x, size) for x in seen[number])) if spec.kv_source is None else None

    layers = tuple(rings(number, spec) for number, spec in enumerate(config.layers))
    return Cache(layers, _ring(segments, slots), jnp.int32(segments.shape[1]))


def _size(config: ModelConfig, number: int, spec: LayerSpec, slots: int) -> int:
    """Slots of a layer's ring: enough for every layer that reads it."""
    readers = [spec, *(other for other in config.layers if other.kv_source == number)]
    return min(slots, max(slots if reader.window is None else reader.window for reader in readers))


def _ring(x: Shaped[Array, "B T ..."], size: int) -> Shaped[Array, "B S ..."]:
    """The last tokens of a row in their slots."""
    length = x.shape[1]
    if length > size:
        return jnp.roll(x[:, -size:], length % size, 1)
    return jnp.pad(x, [(0, size - length if axis == 1 else 0) for axis in range(x.ndim)])


def attended(ring: LayerCache, new: LayerCache, first: Int[Array, ""]) -> LayerCache:
    """What new tokens see: the ring with a single one in its slot, or several behind the ring as it was.

    Several in their slots at once would take those of tokens that the earlier of them still see.
    """
    if new.keys.shape[1] == 1:
        return LayerCache(*(_put(*pair, first) for pair in zip(ring, new, strict=True)))
    return LayerCache(*(jnp.concatenate(pair, 1) for pair in zip(ring, new, strict=True)))


def key_places(segments: Int[Array, "B S"], queries: Places, seen: int) -> Places:
    """Where the keys that `attended` gives stand.

    Args:
        segments: the cache's, before the new tokens.
        queries: the new tokens.
        seen: how many keys there are.
    """
    count = len(queries.slots)
    alone = count == 1
    last = queries.slots[0] - (0 if alone else 1)
    size = seen if alone else seen - count
    if alone:
        segments = _put(segments, queries.segments, last)
    # A slot never taken gets a number below 0 and, as that of a taken one would, leads to its segment, which is 0.
    slots = last - (last - jnp.arange(size)) % size
    if size != segments.shape[1]:
        segments = jnp.take(segments, slots % segments.shape[1], 1)
    # A picture is read whole or not at all, so that no later token belongs to one that the cache holds.
    images = None if queries.images is None else jnp.zeros_like(segments)
    if alone:
        return Places(slots, segments, images)
    slots, segments = jnp.concatenate([slots, queries.slots]), jnp.concatenate([segments, queries.segments], 1)
    if images is not None and queries.images is not None:
        images = jnp.concatenate([images, queries.images], 1)
    return Places(slots, segments, images)


def extended(cache: Cache, seen: Sequence[LayerCache], segments: Int[Array, "B T"]) -> Cache:
    """The cache after new tokens, given what they attended to."""
    count = segments.shape[1]

    def kept(ring: LayerCache | None, layer: LayerCache) -> LayerCache | None:
        if ring is None or count == 1:
            return None if ring is None else layer
        return LayerCache(*(_put(old, x[:, -count:], cache.length) for old, x in zip(ring, layer, strict=True)))

    layers = tuple(kept(*pair) for pair in zip(cache.layers, seen, strict=True))
    return Cache(layers, _put(cache.segments, segments, cache.length), cache.length + count)


def _put(ring: Shaped[Array, "B S ..."], new: Shaped[Array, "B T ..."], first: Int[Array, ""]) -> Array:
    """A ring with new tokens, of which number `first` is the first, in their slots."""
    size, count = ring.shape[1], new.shape[1]
    if count == 1:
        return jax.lax.dynamic_update_slice_in_dim(ring, new, first % size, 1)
    new = new[:, -size:]
    slots = (first + count - new.shape[1] + jnp.arange(new.shape[1])) % size
    return ring.at[:, slots].set(new, unique_indices=True)


def moved(cache: Cache, length: Int[Array, ""]) -> Cache:
    """The same rows as if they had begun later, so that their next token is number `length`: no less than it was."""
    layers, segments = jax.tree.map(
        lambda ring: jnp.roll(ring, length - cache.length, 1), (cache.layers, cache.segments)
    )
    return Cache(layers, segments, length)
