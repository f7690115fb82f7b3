"""Interpolation between the model that PPO starts from and the one that it ends with."""

from typing import Any

import jax
import jax.numpy as jnp


def interpolated(start: Any, end: Any, share: float) -> Any:
    """Parameters on the straight line: start + share * (end - start), in float32.

    The last stretch of a run buys much reward for little and costs most diversity. Walking some of it back on the
    straight line to the start trades the two better than stopping earlier does: linear interpolation towards
    initialisation (LITI), the last step of WARP (Ramé et al. 2024, section 3.3).

    Args:
        start: parameters of the reference.
        end: of the trained policy, of the same shapes.
        share: how much of the way stays, above 0; 1 gives `end` itself.
    """
    if share == 1:
        return end

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        first, last = a.astype(jnp.float32), b.astype(jnp.float32)
        return (first + share * (last - first)).astype(b.dtype)

    return jax.tree.map(between, start, end)
