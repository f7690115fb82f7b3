"""The result of PPO: a point of the straight line between the model that it starts from and the one it ends with.

The last stretch of a run buys much reward for little and costs most diversity. Walking some of it back on the straight
line to the start trades the two better than stopping earlier does: linear interpolation towards initialisation (LITI),
the last step of WARP (Ramé et al. 2024, section 3.3). How far to walk back is said as a divergence, since that is what
tells how much a policy has changed (Gao et al. 2022), whatever the learning rate, the batch and the seed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

HALVINGS = 6  # the share of the way is found to within 1/64


def interpolated(start: Any, end: Any, share: float) -> Any:
    """Parameters on the straight line: start + share * (end - start), in float32.

    Args:
        start: parameters of the reference.
        end: of the trained policy, of the same shapes.
        share: how much of the way stays, from 0 to 1; 1 gives `end` itself.
    """
    if share == 1:
        return end

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        first, last = a.astype(jnp.float32), b.astype(jnp.float32)
        return (first + share * (last - first)).astype(b.dtype)

    return jax.tree.map(between, start, end)


def share_within(divergence: Callable[[float], float], limit: float) -> float:
    """How much of the way may stay for a divergence of at most `limit`, found by halving; 1 if all of it.

    Args:
        divergence: nats a reply from the start, of the point that is the given share of the way to the end.
        limit: nats a reply.
    """
    if divergence(1.0) <= limit:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if divergence(middle) <= limit else (low, middle)
    return low
