"""A pool of rows in which replies that have ended make room for those that wait.

A batch that is drawn to its end does as much work as if all of its replies were as long as the longest. Here the rows
of replies that have ended are given to others, an eighth of all rows at a time, while the rest go on.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, Key

from base_model.batch import Batch
from base_model.cache import moved
from base_model.sampling import (
    Prompts,
    Replies,
    SamplingConfig,
    Vocabulary,
    by_row,
    extended,
    of_rows,
    opened,
    read_prompts,
)


class Waiting(NamedTuple):
    """Prompts of one width that wait for rows.

    Attributes:
        prompts: left-padded.
        keys: one a reply, the copies of a prompt beside one another.
        replies: how many of them to draw; what stands behind them fills the batch up.
        cuts: where long prompts are cut, see cuts_of.
    """

    prompts: Batch
    keys: Key[Array, " N"]
    replies: int
    cuts: tuple[int, ...] = ()


class Reply(NamedTuple):
    """A reply that has ended: its number, counted over all that waited, and its tokens."""

    number: int
    tokens: Int[np.ndarray, " R"]


def draw_all(
    structure: nnx.GraphDef,
    params: Any,
    waiting: Iterator[Waiting],
    *,
    rows: int,
    copies: int,
    vocabulary: Vocabulary,
    config: SamplingConfig,
) -> Iterator[Reply]:
    """Draws every reply, and gives each as it ends; each is the one that `sample` draws with its key.

    Args:
        structure: of a Decoder.
        params: its parameters.
        waiting: prompts, all of one width.
        rows: replies drawn at the same time.
        copies: replies a prompt.
        vocabulary: see Vocabulary.
        config: how tokens are chosen.
    """
    at_once = max(1, rows // 8)
    numbers = np.full(rows, -1)  # of the replies in the rows; -1 is a free row
    queue = _queue(structure, params, waiting, vocabulary, config.max_new_tokens, at_once)
    if (group := next(queue, None)) is None:
        return
    replies: Replies = _empty(group.read, group.keys, rows, config.max_new_tokens)
    while group is not None or (numbers >= 0).any():
        while group is not None and (free := np.flatnonzero(numbers < 0)).size >= at_once:
            # A group that is not full leaves rows free; a place beyond the rows is none.
            place = np.where(np.arange(at_once) < group.count, free[:at_once], rows)
            replies = _admit(replies, group.read, group.keys, group.chosen, place, copies)
            numbers[free[: group.count]] = group.number + np.arange(group.count)
            group = next(queue, None)
        enough = rows - at_once if group is not None else 0
        replies = _extend(structure, params, replies, enough, vocabulary, config)
        running, tokens, mask = jax.device_get((replies.running, replies.samples.tokens, replies.samples.mask))
        for row in np.flatnonzero((numbers >= 0) & ~running):
            yield Reply(int(numbers[row]), tokens[row][mask[row]])
            numbers[row] = -1


class _Group(NamedTuple):
    """Replies that get their rows at the same time.

    Attributes:
        read: their prompts among others.
        keys: of the replies to all of these.
        chosen: which replies those are, `count` of them and then any.
        count: how many.
        number: of the first of them, over all.
    """

    read: Prompts
    keys: Key[Array, " N"]
    chosen: Int[np.ndarray, " G"]
    count: int
    number: int


def _queue(
    structure: nnx.GraphDef, params: Any, waiting: Iterator[Waiting], vocabulary: Vocabulary, length: int, at_once: int
) -> Iterator[_Group]:
    """Reads prompts when their turn comes, and parts their replies into groups."""
    number = 0
    for prompts, keys, replies, cuts in waiting:
        read = _read(structure, params, prompts, vocabulary, prompts.tokens.shape[1] + length, cuts)
        for first in range(0, replies, at_once):
            count = min(at_once, replies - first)
            yield _Group(read, keys, np.minimum(first + np.arange(at_once), replies - 1), count, number)
            number += count


@partial(jax.jit, static_argnums=(0, 3, 4, 5))
def _read(
    structure: nnx.GraphDef, params: Any, prompts: Batch, vocabulary: Vocabulary, slots: int, cuts: tuple[int, ...]
) -> Prompts:
    return read_prompts(nnx.merge(structure, params), prompts, vocabulary, slots=slots, cuts=cuts)


@partial(jax.jit, static_argnums=(2, 3))
def _empty(read: Prompts, keys: Key[Array, " N"], rows: int, length: int) -> Replies:
    """Rows in which nobody is; the first prompts are where the next token of all stands."""
    read = by_row(lambda x: jnp.zeros((rows, *x.shape[1:]), x.dtype), read)
    replies = opened(read, jnp.broadcast_to(keys[0], (rows,)), length)
    return replies._replace(running=jnp.zeros(rows, bool))


@partial(jax.jit, static_argnums=5, donate_argnums=0)
def _admit(
    replies: Replies, read: Prompts, keys: Key[Array, " N"], chosen: Int[Array, " G"], place: Int[Array, " G"],
    copies: int,
) -> Replies:  # fmt: skip
    """Puts replies that wait into rows."""
    new = opened(by_row(lambda x: x[chosen // copies], read), keys[chosen], replies.samples.tokens.shape[1])
    now = moved(new.read.cache, replies.read.cache.length)
    new = new._replace(read=new.read._replace(cache=now))
    rows, count = len(replies.steps), len(place)

    def put(old: Array, x: Array) -> Array:
        if old.ndim == 0:
            return old
        return of_rows(old, rows).at[place].set(of_rows(x, count), mode="drop").reshape(old.shape)

    return jax.tree.map(put, replies, new)


@partial(jax.jit, static_argnums=(0, 4, 5), donate_argnums=2)
def _extend(
    structure: nnx.GraphDef, params: Any, replies: Replies, enough: Int[Array, ""], vocabulary: Vocabulary,
    config: SamplingConfig,
) -> Replies:  # fmt: skip
    """Draws tokens until no more than `enough` replies run."""
    extend = partial(extended, nnx.merge(structure, params), vocabulary, config)
    return jax.lax.while_loop(lambda replies: replies.running.sum() > enough, extend, replies)
