"""Reductions over the tokens that a mask keeps.

Every mean over text divides by the number of kept entries, never by the padded size. What a mask drops may hold
anything, NaN included: it reaches neither the result nor the gradient. A mask that keeps nothing gives 0.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped


def upcast(x: Shaped[Array, "*axes"]) -> Float[Array, "*axes"]:
    """Casts to float32, or leaves a wider float alone.

    bfloat16 has eight bits of mantissa, too few to add up a row of log-probabilities; integers would round rewards.
    """
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def masked_sum(
    x: Shaped[Array, "*axes"], mask: Bool[Array, "*axes"], *, axis: int | None = None
) -> Float[Array, "..."]:
    """Sums the kept entries.

    Args:
      x: any real dtype; summed in float32 or wider.
      mask: True where an entry counts.
      axis: the axis to reduce, or None for all.

    Returns:
      `x` without `axis`, or a scalar.
    """
    # A selection, not a product: 0 * NaN is NaN.
    return jnp.sum(jnp.where(mask, upcast(x), 0), axis=axis)


def masked_mean(
    x: Shaped[Array, "*axes"], mask: Bool[Array, "*axes"], *, axis: int | None = None
) -> Float[Array, "..."]:
    """Averages the kept entries; 0 where there are none.

    Args:
      x: any real dtype; averaged in float32 or wider.
      mask: True where an entry counts.
      axis: the axis to reduce, or None for all.

    Returns:
      `x` without `axis`, or a scalar.
    """
    total = masked_sum(x, mask, axis=axis)
    return total / jnp.maximum(jnp.sum(mask, axis=axis, dtype=total.dtype), 1)


def masked_var(x: Shaped[Array, "*axes"], mask: Bool[Array, "*axes"], *, unbiased: bool = True) -> Float[Array, ""]:
    """Variance of the kept entries, in two passes; 0 for fewer than two.

    Args:
      x: any real dtype; computed in float32 or wider.
      mask: True where an entry counts.
      unbiased: divide by n - 1 instead of n.

    Returns:
      A scalar.
    """
    # Cleared first: squaring a NaN that is dropped afterwards still has a NaN gradient.
    x = jnp.where(mask, upcast(x), 0)
    squares = masked_sum(jnp.square(x - masked_mean(x, mask)), mask)
    count = jnp.sum(mask, dtype=x.dtype)
    return squares / jnp.maximum(count - 1 if unbiased else count, 1)


def masked_whiten(
    x: Shaped[Array, "*axes"],
    mask: Bool[Array, "*axes"],
    *,
    shift_mean: bool = True,
    unbiased: bool = True,
    epsilon: float = 1e-8,
) -> Float[Array, "*axes"]:
    """Scales the kept entries to variance 1, and to mean 0 unless told to keep the mean.

    (x - mean) / sqrt(var + epsilon) [+ mean]

    Args:
      x: any real dtype; computed in float32 or wider.
      mask: True where an entry counts, in the statistics and in the result.
      shift_mean: False puts the mean back after the scaling, so that the sign of rewards survives.
      unbiased: divide the variance by n - 1 instead of n.
      epsilon: added to the variance; equal entries whiten to 0 (or to their mean).

    Returns:
      The shape of `x`, 0 where the mask drops.
    """
    x = jnp.where(mask, upcast(x), 0)
    mean = masked_mean(x, mask)
    whitened = (x - mean) * jax.lax.rsqrt(masked_var(x, mask, unbiased=unbiased) + epsilon)
    if not shift_mean:
        whitened = whitened + mean
    return jnp.where(mask, whitened, 0)
