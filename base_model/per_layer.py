"""Embeddings of their own for every layer (Gemma 4 E2B and E4B): a table too large to pass through each, read once."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from base_model.config import ModelConfig
from base_model.layers import RMSNorm, matmul, param
from base_model.tokenizer import PAD


class PerLayerEmbedding(nnx.Module):
    """What each layer is told of each token: half from a table, half from the token's embedding."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """The table starts like the token embeddings, the projection fan-in."""
        dim, width = config.embed_dim, len(config.layers) * config.per_layer_dim
        self.table = param(rngs.params(), (config.vocab_size, width), ("vocab", "embed"), 0.02)
        self.project = param(rngs.params(), (dim, width), ("embed", "mlp"), dim**-0.5)
        self.norm = RMSNorm(config.per_layer_dim, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.width, self.dtype = config.per_layer_dim, dtype

    def __call__(self, x: Float[Array, "B T D"], tokens: Int[Array, "B T"]) -> Float[Array, "B T L P"]:
        """One vector for each layer and token.

        Args:
            x: embeddings, with soft tokens in their places.
            tokens: ids; where a soft token stands, the padding.
        """
        shape = (*tokens.shape, -1, self.width)
        known = self.table[...][tokens]
        # The row of the padding, which soft tokens share, is fixed in the published models and learns nothing.
        known = jnp.where((tokens == PAD)[..., None], jax.lax.stop_gradient(known), known).reshape(shape)
        known = known * self.width**0.5
        seen = matmul(x, self.project[...], self.dtype).reshape(shape) * x.shape[-1] ** -0.5
        return (self.norm(seen) + known) * 2**-0.5


class PerLayerInput(nnx.Module):
    """Lets a layer's own embedding of a token into the residual stream, as far as a gate opens."""

    def __init__(self, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        dim, width = config.embed_dim, config.per_layer_dim
        self.gate = param(rngs.params(), (dim, width), ("embed", "mlp"), dim**-0.5)
        self.out = param(rngs.params(), (width, dim), ("mlp", "embed"), width**-0.5)
        self.norm = RMSNorm(dim, epsilon=config.norm_epsilon, offset=config.norm_offset)
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T D"], own: Float[Array, "B T P"]) -> Float[Array, "B T D"]:
        """What is added to the residual stream."""
        gate = jax.nn.gelu(matmul(x, self.gate[...], self.dtype), approximate=True)
        return self.norm(matmul(gate * own, self.out[...], self.dtype))
