"""Linear layers between stored bounds, as in the encoders of Gemma 4."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from base_model.layers import constant, matmul, param

LARGEST = float(jnp.finfo(jnp.float32).max)


class ClippedLinear(nnx.Module):
    """clip(clip(x, input bounds) @ kernel, output bounds); with `clipped=False` the plain product.

    The bounds come with a published checkpoint: weights that no optimizer moves, because their gradient is zero.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        axes: tuple[str | None, str | None],
        *,
        clipped: bool,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        """Fan-in initialisation, and bounds that no activation reaches: infinite ones would be no finite parameters."""
        self.kernel = param(rngs.params(), shape, axes, shape[0] ** -0.5)
        if clipped:
            self.input_min, self.output_min = (constant(-LARGEST, (), ()) for _ in range(2))
            self.input_max, self.output_max = (constant(LARGEST, (), ()) for _ in range(2))
        self.clipped, self.dtype = clipped, dtype

    def __call__(self, x: Float[Array, "... N"]) -> Float[Array, "... M"]:
        """Applies the layer to the last axis."""
        if not self.clipped:
            return matmul(x, self.kernel[...], self.dtype)
        y = matmul(_clip(x, self.input_min, self.input_max), self.kernel[...], self.dtype)
        return _clip(y, self.output_min, self.output_max)


def _clip(x: Float[Array, "... N"], least: nnx.Param, most: nnx.Param) -> Float[Array, "... N"]:
    return jnp.clip(x, jax.lax.stop_gradient(least[...]), jax.lax.stop_gradient(most[...]))
