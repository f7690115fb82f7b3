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
    """Keys and values of one layer's tokens, one after another."""

    keys: Float[Array, "B S K D"]
    values: Float[Array, "B S K D"]


class Ring(NamedTuple):
    """Keys and values of one layer in their slots, laid out as the products with a single query want them.

    N is B * K, the heads of a row beside one another: left apart, an axis of one head is dropped between the write of a
    token and its use, and XLA then copies the whole ring, several times over, for each token.
    """

    keys: Float[Array, "N D S"]
    values: Float[Array, "N S D"]


class Cache(NamedTuple):
    """Rows that can be read on.

    Attributes:
        layers: each layer's; None for one that reads the keys of another.
        segments: ring of each token's packed example, 0 for padding and for slots not yet taken; no layer's is longer.
        length: tokens read so far, padding among them: the number of the next one. Rows count alike.
    """

    layers: tuple[Ring | None, ...]
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


def start(config: ModelConfig, seen: Sequence[LayerCache | Ring], segments: Int[Array, "B T"], slots: int) -> Cache:
    """The cache of rows that have been read from their beginning and will be at most `slots` tokens long."""

    def ring(number: int, spec: LayerSpec) -> Ring | None:
        if spec.kv_source is not None:
            return None
        layer = seen[number]
        assert isinstance(layer, LayerCache)  # a row that begins has no rings yet
        keys, values = _turned(layer)
        size = _size(config, number, spec, slots)
        return Ring(_ring(keys, size, axis=2), _ring(values, size))

    layers = tuple(ring(number, spec) for number, spec in enumerate(config.layers))
    return Cache(layers, _ring(segments, slots), jnp.int32(segments.shape[1]))


def _turned(layer: LayerCache) -> Ring:
    """Tokens one after another as a ring of that many slots."""
    keys, values = (x.reshape(-1, *x.shape[2:]) for x in (jnp.moveaxis(layer[0], 1, 3), jnp.moveaxis(layer[1], 1, 2)))
    return Ring(keys, values)


def _unrolled(ring: Ring, rows: int) -> LayerCache:
    """The slots of a ring, one after another."""
    keys, values = (x.reshape(rows, -1, *x.shape[1:]) for x in ring)
    return LayerCache(jnp.moveaxis(keys, 3, 1), jnp.moveaxis(values, 2, 1))


def _size(config: ModelConfig, number: int, spec: LayerSpec, slots: int) -> int:
    """Slots of a layer's ring: enough for every layer that reads it."""
    readers = [spec, *(other for other in config.layers if other.kv_source == number)]
    return min(slots, max(slots if reader.window is None else reader.window for reader in readers))


def _ring(x: Shaped[Array, "..."], size: int, axis: int = 1) -> Shaped[Array, "..."]:
    """The last of the tokens along an axis in their slots."""
    length = x.shape[axis]
    if length > size:
        return jnp.roll(jax.lax.slice_in_dim(x, length - size, length, axis=axis), length % size, axis)
    return jnp.pad(x, [(0, size - length if i == axis else 0) for i in range(x.ndim)])


def attended(ring: Ring, new: LayerCache, first: Int[Array, ""]) -> Ring | LayerCache:
    """What new tokens see: the ring with a single one in its slot, or several behind the ring as it was.

    Several in their slots at once would take those of tokens that the earlier of them still see.
    """
    if new.keys.shape[1] == 1:
        return _written(ring, new, first)
    before = _unrolled(ring, len(new.keys))
    return LayerCache(*(jnp.concatenate(pair, 1) for pair in zip(before, new, strict=True)))


def _written(ring: Ring, new: LayerCache, first: Int[Array, ""]) -> Ring:
    """A ring with new tokens in their slots."""
    keys, values = _turned(new)
    return Ring(_put(ring.keys, keys, first, axis=2), _put(ring.values, values, first))


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


def extended(cache: Cache, seen: Sequence[Ring | LayerCache], segments: Int[Array, "B T"]) -> Cache:
    """The cache after new tokens, given what they attended to."""
    count = segments.shape[1]

    def kept(ring: Ring | None, layer: Ring | LayerCache) -> Ring | None:
        if ring is None:
            return None
        if isinstance(layer, Ring):
            return layer
        return _written(ring, LayerCache(*(x[:, -count:] for x in layer)), cache.length)

    layers = tuple(kept(*pair) for pair in zip(cache.layers, seen, strict=True))
    return Cache(layers, _put(cache.segments, segments, cache.length), cache.length + count)


def _put(ring: Shaped[Array, "..."], new: Shaped[Array, "..."], first: Int[Array, ""], axis: int = 1) -> Array:
    """A ring along an axis with new tokens, of which number `first` is the first, in their slots."""
    size, count = ring.shape[axis], new.shape[axis]
    if count == 1:
        return jax.lax.dynamic_update_slice_in_dim(ring, new, first % size, axis)
    fitting = min(size, count)
    slots = (first + count - fitting + jnp.arange(fitting)) % size
    new = jax.lax.slice_in_dim(new, count - fitting, count, axis=axis)
    return ring.at[(slice(None),) * axis + (slots,)].set(new, unique_indices=True)


def moved(cache: Cache, length: Int[Array, ""]) -> Cache:
    """The same rows as if they had begun later, so that their next token is number `length`: no less than it was."""
    later = length - cache.length

    def ring(layer: Ring | None) -> Ring | None:
        return None if layer is None else Ring(jnp.roll(layer.keys, later, 2), jnp.roll(layer.values, later, 1))

    return Cache(tuple(ring(layer) for layer in cache.layers), jnp.roll(cache.segments, later, 1), length)
