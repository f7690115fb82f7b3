"""Layers with biases: SigLIP and the patch embedder have them, the decoders of the Gemma family do not."""

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from base_model.layers import constant, matmul, param, rms_norm


class Linear(nnx.Module):
    """x @ kernel + bias."""

    def __init__(
        self, shape: tuple[int, int], axes: tuple[str | None, str | None], *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        """Fan-in initialisation; the bias starts at zero."""
        self.kernel = param(rngs.params(), shape, axes, shape[0] ** -0.5)
        self.bias = constant(0.0, shape[1:], axes[1:])
        self.dtype = dtype

    def __call__(self, x: Float[Array, "... N"]) -> Float[Array, "... M"]:
        """Applies the layer to the last axis."""
        return matmul(x, self.kernel[...], self.dtype) + self.bias[...]


def layer_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], bias: Float[Array, " D"], epsilon: float
) -> Float[Array, "... D"]:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias, in float32 (Ba et al. 2016)."""
    x = x.astype(jnp.float32)
    return rms_norm(x - x.mean(-1, keepdims=True), weight, epsilon) + bias


class LayerNorm(nnx.Module):
    """`layer_norm` with learned weight and bias."""

    def __init__(self, dim: int, *, epsilon: float):
        """Starts as the norm alone."""
        self.weight, self.bias = constant(1.0, (dim,), (None,)), constant(0.0, (dim,), (None,))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises the last axis."""
        return layer_norm(x, self.weight[...], self.bias[...], self.epsilon)
