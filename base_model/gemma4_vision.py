"""Pictures in: the encoder of Gemma 4, which keeps their shape and spends a budget of soft tokens on each."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt8

from base_model.checks import require_flags, require_numbers, require_whole
from base_model.clipped import ClippedLinear
from base_model.config import ModelConfig
from base_model.layers import RMSNorm, constant, matmul, param, rms_norm, rotate
from base_model.patch_attention import patch_attention
from base_model.patch_grid import Patches, cut
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Gemma4VisionConfig:
    """Sizes of the encoder; the defaults are those of Gemma 4 E2B and E4B.

    Attributes:
        patch: side of a patch in pixels.
        pool: patches a side that become one soft token.
        width: of a patch in the layers.
        layers: of attention and MLP.
        heads: of the attention.
        head_dim: of each; the first half turns with the column of a patch, the second with its row.
        mlp_dim: hidden width of the gated MLP.
        rope_theta: base of the rotary frequencies.
        places: rows and columns for which the model has learned positions.
        clipped: linear layers stand between stored bounds.
        standardised: soft tokens are shifted and scaled by stored numbers.
        max_soft_tokens: budget of a picture; published models know 70, 140, 280, 560 and 1120.
    """

    KIND: ClassVar[str] = "gemma4-vision"

    patch: int = 16
    pool: int = 3
    width: int = 768
    layers: int = 16
    heads: int = 12
    head_dim: int = 64
    mlp_dim: int = 3072
    rope_theta: float = 100.0
    places: int = 10_240
    clipped: bool = True
    standardised: bool = False
    norm_epsilon: float = 1e-6
    max_soft_tokens: int = 280

    def __post_init__(self) -> None:
        """Checks sizes, and that both halves of a head have angles to turn."""
        require_whole(
            patch=self.patch, pool=self.pool, width=self.width, layers=self.layers, heads=self.heads,
            head_dim=self.head_dim, mlp_dim=self.mlp_dim, places=self.places, max_soft_tokens=self.max_soft_tokens,
        )  # fmt: skip
        require_numbers(rope_theta=self.rope_theta, norm_epsilon=self.norm_epsilon)
        require_flags(clipped=self.clipped, standardised=self.standardised)
        if self.head_dim % 4:
            raise BadInput(f"head_dim must be a multiple of 4 for positions on two axes, not {self.head_dim}")


def prepare(picture: UInt8[np.ndarray, "H W 3"], config: Gemma4VisionConfig) -> Patches:
    """The picture in patches, resized to what the budget allows.

    Raises:
        BadInput: when it is too thin for that.
    """
    return cut(picture, patch=config.patch, group=config.pool, budget=config.max_soft_tokens, places=config.places)


def soft_tokens(prepared: Patches, config: Gemma4VisionConfig) -> int:
    """Places that the picture takes among the tokens."""
    return int(prepared.valid.sum()) // config.pool**2


def axial_rotate(
    x: Float[Array, "N P H K"], positions: Int[Array, "N P 2"], *, theta: float
) -> Float[Array, "N P H K"]:
    """Rotary positions on two axes: half of each head turns with the column, the other half with the row."""
    halves = zip(jnp.split(x, 2, -1), jnp.unstack(positions, axis=-1), strict=True)
    return jnp.concatenate([rotate(half, place, theta=theta, fraction=1.0, scale=1.0) for half, place in halves], -1)


def pool(
    x: Float[Array, "N P D"], positions: Int[Array, "N P 2"], side: int
) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
    """Means over squares of `side` x `side` patches, rows first, and which squares are there.

    Patches may stand in any order and padding anywhere; S = P / side ** 2, and the squares that are there come first.
    """
    column, row = jnp.unstack(positions // side, axis=-1)
    columns = column.max(-1, keepdims=True) + 1
    square = jnp.where(column < 0, -1, column + columns * row)
    members = jax.nn.one_hot(square, positions.shape[1] // side**2)  # nothing at -1
    return jnp.einsum("nps,npd->nsd", members, x) / side**2, members.any(1)


class PatchAttention(nnx.Module):
    """Attention with norms on queries, keys and values, and axial rotary positions."""

    def __init__(self, vision: Gemma4VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        width, inner = vision.width, vision.heads * vision.head_dim
        linear = lambda shape, axes: ClippedLinear(shape, axes, clipped=vision.clipped, dtype=dtype, rngs=rngs)  # noqa: E731
        self.query, self.key, self.value = (linear((width, inner), ("embed", "heads")) for _ in range(3))
        self.out = linear((inner, width), ("heads", "embed"))
        self.query_norm, self.key_norm = (_norm(vision.head_dim, vision) for _ in range(2))
        self.vision = vision

    def __call__(
        self, x: Float[Array, "N P D"], positions: Int[Array, "N P 2"], valid: Bool[Array, "N P"]
    ) -> Float[Array, "N P D"]:
        """Mixes each patch with all others of its picture."""
        split = lambda y: y.reshape(*y.shape[:-1], self.vision.heads, -1)  # noqa: E731
        turn = lambda y: axial_rotate(y, positions, theta=self.vision.rope_theta)  # noqa: E731
        query = turn(self.query_norm(split(self.query(x))))
        key = turn(self.key_norm(split(self.key(x))))
        value = rms_norm(split(self.value(x)), None, self.vision.norm_epsilon)
        mixed = patch_attention(query, key, value, valid, scale=1.0)
        return self.out(mixed.reshape(*x.shape[:2], -1))


class ClippedMLP(nnx.Module):
    """down(gelu(gate(x)) * up(x)) of clipped linear layers."""

    def __init__(self, vision: Gemma4VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        linear = lambda shape, axes: ClippedLinear(shape, axes, clipped=vision.clipped, dtype=dtype, rngs=rngs)  # noqa: E731
        self.gate, self.up = (linear((vision.width, vision.mlp_dim), ("embed", "mlp")) for _ in range(2))
        self.down = linear((vision.mlp_dim, vision.width), ("mlp", "embed"))

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        """Applies the MLP to every patch."""
        return self.down(jax.nn.gelu(self.gate(x), approximate=True) * self.up(x))


class Layer(nnx.Module):
    """Attention and MLP, each between two norms."""

    def __init__(self, vision: Gemma4VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Builds the parts."""
        self.attention = PatchAttention(vision, dtype=dtype, rngs=rngs)
        self.mlp = ClippedMLP(vision, dtype=dtype, rngs=rngs)
        self.attention_norm, self.attention_post_norm = (_norm(vision.width, vision) for _ in range(2))
        self.mlp_norm, self.mlp_post_norm = (_norm(vision.width, vision) for _ in range(2))

    def __call__(
        self, x: Float[Array, "N P D"], positions: Int[Array, "N P 2"], valid: Bool[Array, "N P"]
    ) -> Float[Array, "N P D"]:
        """One layer."""
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), positions, valid))
        return x + self.mlp_post_norm(self.mlp(self.mlp_norm(x)))


class Gemma4Vision(nnx.Module):
    """Patches to soft tokens, one for a square of patches, rows first."""

    def __init__(
        self, vision: Gemma4VisionConfig, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs
    ):
        """Fan-in initialisation."""
        width, fan_in = vision.width, 3 * vision.patch**2
        self.patches = param(rngs.params(), (fan_in, width), (None, "embed"), fan_in**-0.5)
        self.places = param(rngs.params(), (2, vision.places, width), (None, None, "embed"), 0.02)
        self.layers = nnx.List(Layer(vision, dtype=dtype, rngs=rngs) for _ in range(vision.layers))
        if vision.standardised:
            self.shift, self.scale = constant(0.0, (width,), (None,)), constant(1.0, (width,), (None,))
        self.project = param(rngs.params(), (width, config.embed_dim), (None, "embed"), width**-0.5)
        self.vision, self.dtype = vision, dtype

    def encode(self, pictures: Patches) -> tuple[Float[Array, "N S M"], Bool[Array, "N S"]]:
        """Soft tokens before they are projected to the decoder's width, and which of them are there."""
        valid, positions = pictures.valid, pictures.positions
        x = matmul(2 * pictures.fractions - 1, self.patches[...], self.dtype)
        x = x + self.places[0, positions[..., 0]] + self.places[1, positions[..., 1]]
        for layer in self.layers:
            # Computed again in the backward pass, which would otherwise hold gigabytes of each picture.
            x = jax.checkpoint(layer)(x, positions, valid)
        x, valid = pool(x, positions, self.vision.pool)
        x = x * self.vision.width**0.5
        if self.vision.standardised:  # by numbers that come with a checkpoint and are not trained
            x = (x - jax.lax.stop_gradient(self.shift[...])) * jax.lax.stop_gradient(self.scale[...])
        return x, valid

    def __call__(self, pictures: Patches) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
        """Soft tokens of each picture in the decoder's width, and which of them are there."""
        x, valid = self.encode(pictures)
        return matmul(rms_norm(x, None, self.vision.norm_epsilon), self.project[...], self.dtype), valid


def _norm(dim: int, vision: Gemma4VisionConfig) -> RMSNorm:
    return RMSNorm(dim, epsilon=vision.norm_epsilon, offset=0.0)
