"""What stands beside the tokens of a row, its pictures and its sounds: from single inputs to soft tokens in place."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# A tree of arrays: one picture or sound as its tower reads it, or a batch of them with two more axes in front.
Inputs = Any


class Media(NamedTuple):
    """One thing for pictures, frames of video among them, and one for sounds.

    - Of an example: two tuples of inputs, in the order of their places.
    - Of a batch: inputs stacked to [B, slots, ...], or None where no row has any.
    - Of a decoder: the ids of the soft tokens whose places they take.
    """

    images: Any = None
    sounds: Any = None


NO_MEDIA, NOTHING = Media((), ()), Media()


def count(row: Sequence[Media]) -> Media:
    """How many pictures and how many sounds the examples of a row have."""
    return Media(*(len(items) for (items,) in _by_sort([row])))


def room(rows: Sequence[Sequence[Media]], *, at_least: Media = NOTHING, slots: tuple[int, int] = (0, 0)) -> Media:
    """Shapes [slots, ...] in which the media of each of these rows fit.

    A program is compiled for each further shape: batches that share one are given the room of all of them.

    Args:
        rows: the media of each row's examples.
        at_least: shapes that must fit, too.
        slots: of a row at least, where there is any medium of that sort.
    """
    return Media(*map(_room, _by_sort(rows), at_least, slots))


def stack(rows: Sequence[Sequence[Media]], at_least: Media = NOTHING) -> Media:
    """The media of each row side by side in arrays; rows with fewer end in blank slots, smaller inputs in blanks.

    A blank is 0, and -1 in signed integers, which are positions: there 0 is a place like any other.
    """
    return Media(*map(_stack, _by_sort(rows), room(rows, at_least=at_least)))


def blanked(media: Media) -> Media:
    """The same places with nothing to see or hear: black and silent, positions and masks as they are."""
    return jax.tree.map(lambda leaf: leaf if leaf.dtype.kind in "ib" else np.zeros_like(leaf), media)


def among(tokens: Int[Array, "B T"], ids: tuple[int, ...]) -> Bool[Array, "B T"]:
    """Which tokens have one of these ids."""
    return jnp.isin(tokens, jnp.array(ids, jnp.int32))


def in_places(
    soft: Float[Array, "B S D"], valid: Bool[Array, "B S"] | None, places: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """The k-th valid soft token of each row at the row's k-th place; whatever elsewhere.

    A place that is left without a soft token is NaN: a picture that went missing on the way is not read as if it were
    there.

    Args:
        soft: soft tokens of all slots of a row, one slot after another.
        valid: which of them count; None if all do, which takes no search.
        places: where the row's tokens leave room for one.
    """
    order = jnp.cumsum(places, 1)
    order = order - 1 if valid is None else jax.vmap(jnp.searchsorted)(jnp.cumsum(valid, 1), order)
    return jnp.take_along_axis(soft, order[..., None], 1)


def _by_sort(rows: Sequence[Sequence[Media]]) -> list[list[list[Inputs]]]:
    """The pictures of each row, and the sounds of each row."""
    return [[[item for media in row for item in getattr(media, sort)] for row in rows] for sort in Media._fields]


def _room(rows: list[list[Inputs]], at_least: Inputs | None, slots: int) -> Inputs | None:
    items = [item for row in rows for item in row]
    if not items:
        return at_least
    fullest = max(slots, *map(len, rows))
    wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((fullest, *leaf.shape), leaf.dtype), _widest(items))
    return wanted if at_least is None else _widest([wanted, at_least])


def _widest(trees: Sequence[Inputs]) -> Inputs:
    """The smallest shapes in which each of these trees fits."""

    def largest(*leaves: Any) -> jax.ShapeDtypeStruct:
        shapes = {leaf.shape for leaf in leaves}
        return jax.ShapeDtypeStruct(tuple(map(max, *shapes)) if len(shapes) > 1 else shapes.pop(), leaves[0].dtype)

    return jax.tree.map(largest, *trees)


def _stack(rows: list[list[Inputs]], shapes: Inputs | None) -> Inputs | None:
    def blank(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        return np.full((len(rows), *leaf.shape), -1 if leaf.dtype.kind == "i" else 0, leaf.dtype)

    stacked = jax.tree.map(blank, shapes)
    for number, row in enumerate(rows):
        for slot, item in enumerate(row):
            for array, leaf in zip(jax.tree.leaves(stacked), jax.tree.leaves(item), strict=True):
                array[(number, slot, *map(slice, leaf.shape))] = leaf
    return stacked
