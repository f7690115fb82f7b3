"""The multimodal decoder: embedder, blocks, soft tokens in their places, tied head."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from base_model.attention import Context
from base_model.block import Block
from base_model.cache import Cache, LayerCache, Places, Ring, extended, start
from base_model.config import ModelConfig
from base_model.layers import RMSNorm, matmul, param
from base_model.media import Inputs, Media, among, in_places
from base_model.per_layer import PerLayerEmbedding
from base_model.tokenizer import PAD
from base_model.towers import TOWERS
from training.sharding import named_sharding


class Decoder(nnx.Module):
    """Tokens, pictures and sounds to hidden states, hidden states to logits."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        soft_tokens: Media,
        dtype: DTypeLike = jnp.float32,
        remat: bool = False,
        mesh: Mesh | None = None,
        rngs: nnx.Rngs,
    ):
        """Builds the parameters.

        Args:
            config: the shape.
            soft_tokens: ids of the places that soft tokens take, a tuple for pictures and one for sounds.
            dtype: of the matrix products, accumulated in float32.
            remat: the backward pass computes each layer again instead of keeping what it needs of it.
            mesh: devices that share the rows of a batch; None, or a mesh of one, if there is nothing to share.
            rngs: where fresh parameters come from.
        """
        self.embedding = param(rngs.params(), (config.vocab_size, config.embed_dim), ("vocab", "embed"), 0.02)
        if config.per_layer_dim:
            self.per_layer = PerLayerEmbedding(config, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(Block(spec, config, dtype=dtype, rngs=rngs) for spec in config.layers)
        self.final_norm = RMSNorm(config.embed_dim, epsilon=config.norm_epsilon, offset=config.norm_offset)
        if config.vision is not None:
            self.vision = TOWERS[type(config.vision)].encoder(config.vision, config, dtype=dtype, rngs=rngs)
        if config.audio is not None:
            self.audio = TOWERS[type(config.audio)].encoder(config.audio, config, dtype=dtype, rngs=rngs)
        self.config, self.soft_tokens, self.dtype, self.remat = config, soft_tokens, dtype, remat
        self.mesh = mesh if mesh is not None and mesh.size > 1 else None

    def embed(self, tokens: Int[Array, "B T"], media: Media | None) -> Float[Array, "B T D"]:
        """Scaled token embeddings, with the k-th soft token of a row in the row's k-th place for one."""
        x = self.embedding[...][tokens] * self.config.embed_dim**0.5
        media = Media() if media is None else media
        if self.config.vision is not None:
            x = _with_soft_tokens(x, self.vision, media.images, among(tokens, self.soft_tokens.images))
        if self.config.audio is not None:
            x = _with_soft_tokens(x, self.audio, media.sounds, among(tokens, self.soft_tokens.sounds))
        return x

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        media: Media | None = None,
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final-norm hidden states of each token.

        Args:
            tokens: token ids; a soft-token id marks each place a picture's soft token takes.
            positions: position of each token in its own example, from 0.
            segments: packed example of each token, 0 for padding; examples do not see each other.
            media: pictures and sounds of each row in the order of their places; unused trailing slots may hold
                anything.
            cache: what was read before; the tokens continue it. Without one the row stands alone.
        """
        return self.read(self.embed(tokens, media), tokens, positions, segments, cache)

    def read(
        self,
        x: Float[Array, "B T D"],
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        cache: Cache | None = None,
    ) -> tuple[Float[Array, "B T D"], Cache | None]:
        """Final-norm hidden states of embeddings in which soft tokens stand in their places already."""
        context = self._context(tokens, positions, segments, cache)
        own = self._own_embeddings(x, tokens)
        if cache is None and self.remat:
            return self.final_norm(self._by_rows(self._read_again(x, context, own))), None
        states, seen = self._layers(x, context, own, cache)
        hidden = self.final_norm(self._by_rows(states[-1]))
        if cache is None:
            return hidden, None
        return hidden, extended(cache, seen, segments)

    def begin(
        self,
        x: Float[Array, "B T D"],
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segments: Int[Array, "B T"],
        *,
        slots: int,
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Reads the beginning of rows that will be at most `slots` tokens long, to be read on through the cache."""
        context = self._context(tokens, positions, segments, None)
        states, seen = self._layers(x, context, self._own_embeddings(x, tokens), None)
        return self.final_norm(self._by_rows(states[-1])), start(self.config, seen, segments, slots)

    def hidden_states(
        self, x: Float[Array, "B T D"], tokens: Array, positions: Array, segments: Array
    ) -> list[Float[Array, "B T D"]]:
        """What each layer leaves of embeddings, for who wants to look inside; the last is that of `read`."""
        context = self._context(tokens, positions, segments, None)
        *states, last = self._layers(x, context, self._own_embeddings(x, tokens), None)[0]
        return [*states, self.final_norm(last)]

    def _context(self, tokens: Array, positions: Array, segments: Array, cache: Cache | None) -> Context:
        slots = jnp.arange(tokens.shape[1]) + (0 if cache is None else cache.length)
        pictures = None
        if self.config.image_attention != "causal":
            is_soft = among(tokens, self.soft_tokens.images)
            begins = is_soft & ~jnp.pad(is_soft, ((0, 0), (1, 0)))[:, :-1]
            pictures = jnp.where(is_soft, jnp.cumsum(begins, 1), 0)
        return Context(positions, Places(slots, segments, pictures), None if cache is None else cache.segments)

    def _own_embeddings(self, x: Float[Array, "B T D"], tokens: Int[Array, "B T"]) -> list[Array | None]:
        """Each layer's own embedding of each token, where the model has such."""
        if not self.config.per_layer_dim:
            return [None] * len(self.blocks)
        is_soft = among(tokens, self.soft_tokens.images + self.soft_tokens.sounds)
        own = self.per_layer(x, jnp.where(is_soft, PAD, tokens))
        return [own[:, :, number] for number in range(len(self.blocks))]

    def _layers(
        self, x: Float[Array, "B T D"], context: Context, own: list[Array | None], cache: Cache | None
    ) -> tuple[list[Array], list[LayerCache | Ring]]:
        """What each layer leaves, and the keys and values it attended to."""
        states: list[Array] = []
        seen: list[LayerCache | Ring] = []
        for number, block in enumerate(self.blocks):
            source = block.spec.kv_source
            x, layer = block(
                self._by_rows(x),
                context,
                own[number],
                None if cache is None else cache.layers[number],
                None if source is None else seen[source],
            )
            states.append(x)
            seen.append(layer)
        return states, seen

    def _read_again(self, x: Float[Array, "B T D"], context: Context, own: list[Array | None]) -> Float[Array, "B T D"]:
        """The layers of rows that stand alone, each computed again in the backward pass.

        Layers of one shape are one loop, so that a deep stack is compiled once and its backward pass holds one layer.
        A layer that others borrow from stands alone, for a loop would keep the keys of all.
        """
        lenders = {spec.kv_source for spec in self.config.layers}
        seen: dict[int | None, LayerCache] = {}
        alike = lambda number: (self.blocks[number].spec, number if number in lenders else None)  # noqa: E731
        for (spec, lender), numbers in itertools.groupby(range(len(self.blocks)), key=alike):
            group = list(numbers)
            structures, states = zip(*(nnx.split(self.blocks[number]) for number in group), strict=True)
            layer = partial(self._again, structures[0], context, seen.get(spec.kv_source), lender is not None)
            layers = zip(states, (own[number] for number in group), strict=True)
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
            x, lent = jax.lax.scan(jax.checkpoint(layer), x, stacked)
            if lender is not None:
                seen[lender] = jax.tree.map(lambda leaf: leaf[0], lent)
        return x

    def _again(
        self,
        structure: nnx.GraphDef,
        context: Context,
        shared: LayerCache | None,
        lends: bool,
        x: Float[Array, "B T D"],
        layer: tuple[Any, Array | None],
    ) -> tuple[Float[Array, "B T D"], LayerCache | None]:
        """One step of such a loop: the state of a layer and its own embeddings are what it runs over."""
        state, own = layer
        x, seen = nnx.merge(structure, state)(self._by_rows(x), context, own, shared=shared)
        return x, seen if lends else None

    def _by_rows(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Says that devices share the rows: left alone the compiler follows the parameters and splits the width."""
        return x if self.mesh is None else jax.lax.with_sharding_constraint(x, named_sharding(self.mesh, ("batch",)))

    def logits(self, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Next-token logits in float32 by the tied head, soft-capped where the config says so."""
        logits = matmul(hidden, self.embedding[...].T, self.dtype)
        cap = self.config.final_logit_cap
        return logits if cap is None else cap * jnp.tanh(logits / cap)


def _with_soft_tokens(
    x: Float[Array, "B T D"], tower: Any, inputs: Inputs | None, places: Bool[Array, "B T"]
) -> Float[Array, "B T D"]:
    """Embeddings with what a tower makes of each row's inputs in the places that the row's tokens leave for it."""
    if inputs is None:
        return jnp.where(places[..., None], jnp.nan, x)
    soft, valid = tower(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), inputs))
    soft = soft.reshape(len(x), -1, x.shape[-1])
    valid = None if valid is None else valid.reshape(len(x), -1)
    return jnp.where(places[..., None], in_places(soft, valid, places), x)
