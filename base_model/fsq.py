"""Finite scalar quantisation (Mentzer, Minnen, Agustsson and Tschannen 2023): a code is a point of a fixed grid.

There is no codebook to learn and none to collapse: each of a cell's few numbers is squashed to a range and rounded to
one of its levels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Levels = tuple[int, ...]


def quantise(z: Float[Array, "... C"], levels: Levels) -> Float[Array, "... C"]:
    """The nearest point of the grid, with the gradient of the squashed numbers (straight through).

    round(h tanh(z + s) - o) / (L // 2), with h = (L - 1) (1 + e) / 2, and for an even L a half step o to one side and s
    such that 0 stays 0.

    Args:
        z: one number for each of the levels.
        levels: how many values each number can take, at least 2.

    Returns:
        Numbers between -1 and 1 (an even L has its extra value at -1).
    """
    count = np.array(levels)
    half = (count - 1) * (1 + 1e-3) / 2
    offset = np.where(count % 2, 0.0, 0.5)
    squashed = jnp.tanh(z + np.arctanh(offset / half)) * half - offset
    rounded = squashed + jax.lax.stop_gradient(jnp.round(squashed) - squashed)
    return rounded / (count // 2)


def to_ids(points: Float[Array, "... C"], levels: Levels) -> Int[Array, "..."]:
    """The number of each point of the grid; the first level counts fastest."""
    digits = jnp.round((points + 1) * (np.array(levels) // 2)).astype(jnp.int32)
    return (digits * _basis(levels)).sum(-1)


def from_ids(ids: Int[Array, "..."], levels: Levels) -> Float[Array, "... C"]:
    """The points that have these numbers."""
    digits = ids[..., None] // _basis(levels) % np.array(levels)
    half = np.array(levels) // 2
    return ((digits - half) / half).astype(jnp.float32)


def _basis(levels: Levels) -> np.ndarray:
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)
