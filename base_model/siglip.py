"""Pictures in: the SigLIP encoder of Gemma 3 (Zhai et al. 2023), averaged over squares of patches to soft tokens."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, UInt8

from base_model.biased import LayerNorm, Linear
from base_model.checks import require_numbers, require_whole
from base_model.config import ModelConfig
from base_model.images import resize
from base_model.layers import RMSNorm, constant, matmul, param
from base_model.patch_attention import patch_attention
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """Sizes of the encoder; the defaults are those of Gemma 3 from 4B.

    Attributes:
        image_size: side in pixels to which every picture is squashed.
        patch: side of a patch in pixels.
        width: of a patch from then on.
        layers: of attention and MLP.
        heads: of the attention.
        mlp_dim: hidden width of the MLP.
        grid: soft tokens a side.
        max_crops: of a picture that is far from square, at most, which follow it as pictures of their own ("pan and
            scan", base_model/pan_and_scan.py); 0 for none.
        crop_size: shortest side of a crop in pixels.
        crop_ratio: longer side of a picture to its shorter one from which there are crops.
    """

    KIND: ClassVar[str] = "siglip"

    image_size: int = 896
    patch: int = 14
    width: int = 1152
    layers: int = 27
    heads: int = 16
    mlp_dim: int = 4304
    grid: int = 16
    norm_epsilon: float = 1e-6
    max_crops: int = 0
    crop_size: int = 256
    crop_ratio: float = 1.2

    def __post_init__(self) -> None:
        """Checks sizes, and that patches, soft tokens and heads divide evenly."""
        require_whole(
            image_size=self.image_size, patch=self.patch, width=self.width, layers=self.layers, heads=self.heads,
            mlp_dim=self.mlp_dim, grid=self.grid, max_crops=self.max_crops or 1, crop_size=self.crop_size,
        )  # fmt: skip
        require_numbers(norm_epsilon=self.norm_epsilon, crop_ratio=self.crop_ratio)
        if self.image_size % self.patch or self.side % self.grid:
            raise BadInput(
                f"{self.image_size} pixels in patches of {self.patch} do not divide into {self.grid} soft tokens a side"
            )
        if self.width % self.heads:
            raise BadInput(f"width ({self.width}) must be a multiple of heads ({self.heads})")

    @property
    def side(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch


def prepare(picture: UInt8[np.ndarray, "H W 3"], config: SiglipConfig) -> UInt8[np.ndarray, "S S 3"]:
    """The picture squashed to the square that the encoder reads."""
    return resize(picture, config.image_size)


def soft_tokens(prepared: UInt8[np.ndarray, "S S 3"], config: SiglipConfig) -> int:
    """As many for every picture."""
    return config.grid**2


class Layer(nnx.Module):
    """Attention and MLP, each behind a layer norm, with biases throughout."""

    def __init__(self, vision: SiglipConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        width, hidden = vision.width, vision.mlp_dim
        linear = lambda shape, axes: Linear(shape, axes, dtype=dtype, rngs=rngs)  # noqa: E731
        self.attention_norm, self.mlp_norm = (LayerNorm(width, epsilon=vision.norm_epsilon) for _ in range(2))
        self.query, self.key, self.value = (linear((width, width), ("embed", "heads")) for _ in range(3))
        self.out = linear((width, width), ("heads", "embed"))
        self.up, self.down = linear((width, hidden), ("embed", "mlp")), linear((hidden, width), ("mlp", "embed"))
        self.heads = vision.heads

    def __call__(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        """One layer."""
        x = x + self._attend(self.attention_norm(x))
        return x + self.down(jax.nn.gelu(self.up(self.mlp_norm(x)), approximate=True))

    def _attend(self, x: Float[Array, "N P D"]) -> Float[Array, "N P D"]:
        split = lambda y: y.reshape(*y.shape[:-1], self.heads, -1)  # noqa: E731
        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        everything = jnp.ones(x.shape[:2], bool)
        mixed = patch_attention(query, key, value, everything, scale=query.shape[-1] ** -0.5)
        return self.out(mixed.reshape(x.shape))


class Siglip(nnx.Module):
    """Square pictures to soft tokens, rows first."""

    def __init__(self, vision: SiglipConfig, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        width, patch = vision.width, vision.patch
        fan_in = 3 * patch**2
        self.patches = param(rngs.params(), (patch, patch, 3, width), (None, None, None, "embed"), fan_in**-0.5)
        self.bias = constant(0.0, (width,), ("embed",))
        self.places = param(rngs.params(), (vision.side**2, width), (None, "embed"), 0.02)
        self.layers = nnx.List(Layer(vision, dtype=dtype, rngs=rngs) for _ in range(vision.layers))
        self.norm = LayerNorm(width, epsilon=vision.norm_epsilon)
        # The norm of Gemma 3's projector, which stores w - 1.
        self.soft_norm = RMSNorm(width, epsilon=vision.norm_epsilon, offset=1.0)
        self.project = param(rngs.params(), (width, config.embed_dim), (None, "embed"), width**-0.5)
        self.vision, self.dtype = vision, dtype

    def encode(self, images: UInt8[Array, "N H W 3"] | Float32[Array, "N H W 3"]) -> Float[Array, "N P D"]:
        """What the encoder makes of each patch, rows first.

        Args:
            images: as `prepare` leaves them, or numbers in [-1, 1].
        """
        pixels = images / jnp.float32(127.5) - 1 if images.dtype == jnp.uint8 else images
        side, patch = self.vision.side, self.vision.patch
        pixels = pixels.reshape(-1, side, patch, side, patch, 3).swapaxes(2, 3).reshape(len(images), side**2, -1)
        x = matmul(pixels, self.patches[...].reshape(-1, self.vision.width), self.dtype)
        x = x + self.bias[...] + self.places[...]
        for layer in self.layers:
            # Computed again in the backward pass, which would otherwise hold gigabytes of each picture.
            x = jax.checkpoint(layer)(x)
        return self.norm(x)

    def __call__(
        self, images: UInt8[Array, "N H W 3"] | Float32[Array, "N H W 3"]
    ) -> tuple[Float[Array, "N S D"], None]:
        """Soft tokens of each picture; all of them count."""
        x, grid = self.encode(images), self.vision.grid
        square = self.vision.side // grid
        pooled = x.reshape(-1, grid, square, grid, square, self.vision.width).mean((2, 4))
        soft = matmul(self.soft_norm(pooled), self.project[...], self.dtype)
        return soft.reshape(len(images), grid**2, -1), None
