"""One layer of the decoder."""

from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from base_model.attention import Attention, Context
from base_model.cache import LayerCache, Ring
from base_model.config import LayerSpec, ModelConfig
from base_model.layers import GatedMLP, RMSNorm, constant
from base_model.moe import Experts
from base_model.per_layer import PerLayerInput


class Block(nnx.Module):
    """Attention and MLP, each between two norms; after them what some models add (Gemma 4)."""

    def __init__(self, spec: LayerSpec, config: ModelConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """The norms on the branches start small, so that a deep stack starts near the identity."""
        norm = lambda start=1.0: RMSNorm(  # noqa: E731
            config.embed_dim, epsilon=config.norm_epsilon, offset=config.norm_offset, start=start
        )
        branch = (2 * len(config.layers)) ** -0.5
        self.attention_norm, self.mlp_norm = norm(), norm()
        if config.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(branch), norm(branch)
        self.attention = Attention(spec, config, dtype=dtype, rngs=rngs)
        self.mlp = GatedMLP(config.embed_dim, spec.mlp_dim, dtype=dtype, rngs=rngs)
        if spec.experts is not None:
            self.experts = Experts(spec.experts, config, dtype=dtype, rngs=rngs)
        if config.per_layer_dim:
            self.per_layer = PerLayerInput(config, dtype=dtype, rngs=rngs)
        if config.layer_scalar:
            self.scalar = constant(1.0, (1,), (None,))
        self.spec, self.config = spec, config

    def __call__(
        self,
        x: Float[Array, "B T D"],
        context: Context,
        own: Float[Array, "B T P"] | None = None,
        cache: Ring | None = None,
        shared: LayerCache | Ring | None = None,
    ) -> tuple[Float[Array, "B T D"], LayerCache | Ring]:
        """One layer; `own` is its own embedding of each token, the others and what is returned are Attention's."""
        branch, seen = self.attention(self.attention_norm(x), context, cache, shared)
        x = x + (self.attention_post_norm(branch) if self.config.post_norms else branch)
        branch = self.mlp(self.mlp_norm(x))
        if self.spec.experts is not None:
            branch = self.experts(x, branch)
        x = x + (self.mlp_post_norm(branch) if self.config.post_norms else branch)
        if own is not None:
            x = x + self.per_layer(x, own)
        return x * self.scalar[...] if self.config.layer_scalar else x, seen
