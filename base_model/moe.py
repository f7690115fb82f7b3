"""Experts beside the MLP of a layer, of which a router chooses a few for each token."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from base_model.config import ExpertsSpec, ModelConfig
from base_model.layers import RMSNorm, constant, matmul, param, rms_norm


class Choice(NamedTuple):
    """The experts that read each token, and the share of each in what they say together."""

    experts: Int[Array, "N C"]
    shares: Float[Array, "N C"]


class Router(nnx.Module):
    """Scores the experts for a token; the scores of those chosen are shares of one, times each expert's own scale."""

    def __init__(self, experts: ExpertsSpec, config: ModelConfig, *, rngs: nnx.Rngs):
        """Fan-in initialisation; scales start at one."""
        dim = config.embed_dim
        self.scale = constant(1.0, (dim,), (None,))
        self.project = param(rngs.params(), (dim, experts.count), ("embed", None), dim**-0.5)
        self.expert_scale = constant(1.0, (experts.count,), (None,))
        self.chosen, self.epsilon = experts.chosen, config.norm_epsilon

    def __call__(self, x: Float[Array, "N D"]) -> Choice:
        """Chooses in float32: a token must not change its experts by a rounding."""
        x = rms_norm(x, self.scale[...] * x.shape[-1] ** -0.5, self.epsilon)
        scores = matmul(x, self.project[...], jnp.float32)
        # The softmax over all experts, divided by its sum over the chosen, is the softmax over the chosen.
        best, experts = jax.lax.top_k(scores, self.chosen)
        return Choice(experts, jax.nn.softmax(best, -1) * self.expert_scale[...][experts])


class Experts(nnx.Module):
    """A mixture of gated MLPs (Shazeer et al. 2017), added to the layer's own MLP, each behind a norm (Gemma 4)."""

    def __init__(self, experts: ExpertsSpec, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        dim, count, hidden = config.embed_dim, experts.count, experts.mlp_dim
        norm = lambda: RMSNorm(dim, epsilon=config.norm_epsilon, offset=config.norm_offset)  # noqa: E731
        self.router = Router(experts, config, rngs=rngs)
        self.gate_up = param(rngs.params(), (count, dim, 2 * hidden), (None, "embed", "mlp"), dim**-0.5)
        self.down = param(rngs.params(), (count, hidden, dim), (None, "mlp", "embed"), hidden**-0.5)
        self.norm, self.post_norm, self.mlp_post_norm = norm(), norm(), norm()
        self.dtype = dtype

    def __call__(self, x: Float[Array, "B T D"], mlp: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the experts and the MLP say together.

        Args:
            x: the residual stream.
            mlp: what the layer's MLP makes of it.
        """
        flat = x.reshape(-1, x.shape[-1])
        mixed = self._mix(self.norm(flat), self.router(flat)).reshape(x.shape)
        return self.mlp_post_norm(mlp) + self.post_norm(mixed)

    def _mix(self, x: Float[Array, "N D"], choice: Choice) -> Float[Array, "N D"]:
        """Tokens stand sorted by expert, so that each expert is one matrix product over those it was given."""
        order = jnp.argsort(choice.experts.ravel())
        token = order // choice.experts.shape[1]
        sizes = jnp.bincount(choice.experts.ravel(), length=self.down.shape[0])
        gate, up = jnp.split(self._product(x[token], self.gate_up, sizes), 2, -1)
        said = self._product(jax.nn.gelu(gate, approximate=True) * up, self.down, sizes)
        return jnp.zeros_like(x).at[token].add(said * choice.shares.ravel()[order, None])

    def _product(self, x: Float[Array, "N D"], kernels: nnx.Param, sizes: Int[Array, " E"]) -> Array:
        cast = lambda y: y.astype(self.dtype)  # noqa: E731
        return jax.lax.ragged_dot(cast(x), cast(kernels[...]), sizes, preferred_element_type=jnp.float32)
