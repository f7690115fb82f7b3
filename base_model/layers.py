"""Norms, projections, rotary positions and the gated MLP: what every decoder layer is made of."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int


def matmul(x: Float[Array, "... N"], kernel: Float[Array, "N M"], dtype: DTypeLike) -> Float[Array, "... M"]:
    """Product with operands cast to `dtype` and a float32 accumulator, in both directions.

    Only the matrix products lose precision, not what stands between them; XLA's own rule would leave the cotangent in
    float32 and so run the two products of the backward pass at half the speed on hardware with bfloat16 units.
    """
    return _matmul(x, kernel, dtype)


def _product(x: Array, kernel: Array, dtype: DTypeLike) -> Array:
    return _matmul_forward(x, kernel, dtype)[0]


_matmul = jax.custom_vjp(_product, nondiff_argnums=(2,))


def _contract(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    return jax.lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _matmul_forward(x: Array, kernel: Array, dtype: DTypeLike) -> tuple[Array, tuple[Array, Array]]:
    rows, cast = x.reshape(-1, x.shape[-1]).astype(dtype), kernel.astype(dtype)
    return _contract(rows, cast, 1, 0).reshape(*x.shape[:-1], kernel.shape[1]), (rows, cast)


def _matmul_backward(dtype: DTypeLike, residuals: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    rows, kernel = residuals
    rows_cotangent = cotangent.reshape(-1, cotangent.shape[-1]).astype(dtype)
    dx = _contract(rows_cotangent, kernel, 1, 1).reshape(*cotangent.shape[:-1], kernel.shape[0])
    return dx, _contract(rows, rows_cotangent, 0, 0)


_matmul.defvjp(_matmul_forward, _matmul_backward)


def param(key: Array, shape: tuple[int, ...], axes: tuple[str | None, ...], scale: float) -> nnx.Param:
    """A normal float32 parameter with standard deviation `scale`, carrying the logical names of its axes."""
    return nnx.Param(jax.random.normal(key, shape, jnp.float32) * scale, logical_axes=axes)


def constant(value: float, shape: tuple[int, ...], axes: tuple[str | None, ...]) -> nnx.Param:
    """A float32 parameter filled with `value`, carrying the logical names of its axes."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), logical_axes=axes)


def rms_norm(x: Float[Array, "... D"], weight: Float[Array, " D"] | None, epsilon: float) -> Float[Array, "... D"]:
    """RMSNorm in float32, x / rms(x) * weight (Zhang and Sennrich 2019); without weight it only normalises."""
    x = x.astype(jnp.float32)
    normed = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), -1, keepdims=True) + epsilon)
    return normed if weight is None else normed * weight


class RMSNorm(nnx.Module):
    """RMSNorm with a learned weight; `offset` is added to the stored weight (1.0 in Gemma 3's files)."""

    def __init__(self, dim: int, *, epsilon: float, offset: float, start: float = 1.0):
        """Starts so that the effective weight is `start`."""
        self.weight = constant(start - offset, (dim,), (None,))
        self.epsilon, self.offset = epsilon, offset

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises the last axis."""
        return rms_norm(x, self.weight[...] + self.offset, self.epsilon)


def rotate(
    x: Float[Array, "B T H D"], positions: Int[Array, "B T"], *, theta: float, fraction: float, scale: float
) -> Float[Array, "B T H D"]:
    """Rotary position embedding (Su et al. 2021) on halves: angle i of position p is p / scale * theta ** (-2 i / D).

    Only the first `fraction` of the D / 2 angles turn; the others have frequency zero.
    """
    half = x.shape[-1] // 2
    turning = int(fraction * half)
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half) / scale
    frequency = jnp.where(jnp.arange(half) < turning, frequency, 0.0)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


class GatedMLP(nnx.Module):
    """down(gelu(gate(x)) * up(x)), the tanh GELU of the Gemma family."""

    def __init__(self, dim: int, hidden: int, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        self.gate = param(rngs.params(), (dim, hidden), ("embed", "mlp"), dim**-0.5)
        self.up = param(rngs.params(), (dim, hidden), ("embed", "mlp"), dim**-0.5)
        self.down = param(rngs.params(), (hidden, dim), ("mlp", "embed"), hidden**-0.5)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies the MLP to every position."""
        gate = jax.nn.gelu(matmul(x, self.gate[...], self.dtype), approximate=True)
        return matmul(gate * matmul(x, self.up[...], self.dtype), self.down[...], self.dtype)
