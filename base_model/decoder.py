"""The multimodal decoder: embedder, blocks, soft tokens in their places, tied head."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from base_model.attention import Attention, LayerCache, Places
from base_model.config import LayerSpec, ModelConfig
from base_model.layers import GatedMLP, RMSNorm, matmul, param
from base_model.vision import PatchEncoder
from training.sharding import named_sharding


class Cache(NamedTuple):
    """What a decoder remembers of the tokens it has read: `length` slots of `segments` and of each layer are filled."""

    layers: tuple[LayerCache, ...]
    segments: Int[Array, "B S"]
    length: Int[Array, ""]


def empty_cache(config: ModelConfig, batch: int, slots: int) -> Cache:
    """A cache for `batch` rows of at most `slots` tokens, float32."""
    layers = tuple(
        LayerCache(*(jnp.zeros((batch, slots, spec.kv_heads, spec.head_dim), jnp.float32) for _ in range(2)))
        for spec in config.layers
    )
    return Cache(layers, jnp.zeros((batch, slots), jnp.int32), jnp.int32(0))


class Block(nnx.Module):
    """Attention and MLP, each between two norms, and the saved scalar on the residual stream (Gemma 4)."""

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
        self.post_norms = config.post_norms

    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        queries: Places,
        keys: Places,
        cache: LayerCache | None,
        slot: Int[Array, ""],
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """One layer."""
        branch, cache = self.attention(self.attention_norm(x), positions, queries, keys, cache, slot)
        x = x + (self.attention_post_norm(branch) if self.post_norms else branch)
        branch = self.mlp(self.mlp_norm(x))
        return x + (self.mlp_post_norm(branch) if self.post_norms else branch), cache


class Decoder(nnx.Module):
    """Tokens and pictures to hidden states, hidden states to logits."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        image_token: int,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ):
        """Builds the parameters.

        Args:
            config: the shape.
            image_token: id of the places that soft tokens take.
            dtype: of the matrix products, accumulated in float32.
            remat: the backward pass computes each layer again instead of keeping what it needs of it.
            mesh: devices that share the rows of a batch; None, or a mesh of one, if there is nothing to share.
            rngs: where fresh parameters come from.
        """
        self.embedding = param(rngs.params(), (config.vocab_size, config.embed_dim), ("vocab", "embed"), 0.02)
        self.blocks = nnx.List(Block(spec, config, dtype=dtype, rngs=rngs) for spec in config.layers)
        self.final_norm = RMSNorm(config.embed_dim, epsilon=config.norm_epsilon, offset=config.norm_offset)
        if config.vision is not None:
            self.vision = PatchEncoder(config.vision, config, dtype=dtype, rngs=rngs)
        self.config, self.image_token, self.dtype, self.remat = config, image_token, dtype, remat
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None

    def embed(self, tokens: Int[Array, "B T"], images: UInt8[Array, "B I H W 3"] | None) -> Float[Array, "B T D"]:
        """Scaled token embeddings, with the k-th soft token of a row in the row's k-th soft-token place."""
        x = self.embedding[...][tokens] * self.config.embed_dim**0.5
        if images is None or images.shape[1] == 0:
            return x
        batch, count = images.shape[:2]
        soft = self.vision(images.reshape(batch * count, *images.shape[2:])).reshape(batch, -1, x.shape[-1])
        is_soft = tokens == self.image_token
        order = jnp.clip(jnp.cumsum(is_soft, 1) - 1, 0, soft.shape[1] - 1)
        return jnp.where(is_soft[..., None], jnp.take_along_axis(soft, order[..., None], 1), x)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        images: UInt8[Array, "B I H W 3"] | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final-norm hidden states of each token.

        Args:
            tokens: token ids; a soft-token id marks each place a picture's soft token takes.
            positions: position of each token in its own example, from 0.
            segments: packed example of each token, 0 for padding; examples do not see each other.
            images: the pictures of each row in the order of their places; unused trailing slots may hold anything.
            cache: what was read before; the tokens continue it. Without one the row stands alone.
        """
        x = self.embed(tokens, images)
        start = jnp.int32(0) if cache is None else cache.length
        slots = start + jnp.arange(tokens.shape[1])
        if cache is None:
            key_slots, key_segments = slots, segments
        else:
            key_segments = jax.lax.dynamic_update_slice(cache.segments, segments, (0, start))
            key_slots = jnp.arange(key_segments.shape[1])
        pictures = key_pictures = None
        if self.config.image_attention == "bidirectional":
            is_soft = tokens == self.image_token
            begins = is_soft & ~jnp.pad(is_soft, ((0, 0), (1, 0)))[:, :-1]
            pictures = jnp.where(is_soft, jnp.cumsum(begins, 1), 0)
            # A picture is read whole or not at all, so that no later token belongs to one that the cache holds.
            key_pictures = jax.lax.dynamic_update_slice(jnp.zeros_like(key_segments), pictures, (0, start))
        queries, keys = Places(slots, segments, pictures), Places(key_slots, key_segments, key_pictures)
        if cache is None:
            return self.final_norm(self._by_rows(self._read(x, positions, queries, keys))), None
        layers = []
        for block, layer_cache in zip(self.blocks, cache.layers, strict=True):
            x, layer_cache = block(self._by_rows(x), positions, queries, keys, layer_cache, start)
            layers.append(layer_cache)
        return self.final_norm(self._by_rows(x)), Cache(tuple(layers), key_segments, start + tokens.shape[1])

    def _read(self, x: Float[Array, "B T D"], positions: Array, queries: Places, keys: Places) -> Float[Array, "B T D"]:
        """All layers of rows that stand alone."""
        if not self.remat:
            for block in self.blocks:
                x, _ = block(self._by_rows(x), positions, queries, keys, None, jnp.int32(0))
            return x
        # Layers of one shape are one loop, so that a deep stack is compiled once and its backward pass holds one layer.
        for _, alike in itertools.groupby(self.blocks, key=lambda block: block.attention.spec):
            structures, states = zip(*(nnx.split(block) for block in alike), strict=True)

            def layer(x: Array, state: Any, structure: nnx.GraphDef = structures[0]) -> tuple[Array, None]:
                block = nnx.merge(structure, state)
                return block(self._by_rows(x), positions, queries, keys, None, jnp.int32(0))[0], None

            x, _ = jax.lax.scan(jax.checkpoint(layer), x, jax.tree.map(lambda *params: jnp.stack(params), *states))
        return x

    def _by_rows(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Says that devices share the rows: left alone the compiler follows the parameters and splits the width."""
        return x if self.mesh is None else jax.lax.with_sharding_constraint(x, named_sharding(self.mesh, ("batch",)))

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Next-token logits in float32 by the tied head, soft-capped where the config says so."""
        logits = matmul(hidden, self.embedding[...].T, self.dtype)
        cap = self.config.final_logit_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)
