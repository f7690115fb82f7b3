"""Pictures in without an encoder: each large patch is projected to a soft token (Gemma 4 unified)."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, UInt8

from base_model.biased import LayerNorm, Linear
from base_model.checks import require_numbers, require_whole
from base_model.config import ModelConfig
from base_model.layers import matmul, param, rms_norm
from base_model.patch_grid import Patches, cut

# The published layer norms have torch's default, whatever the config says of the other norms.
LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class PatchesConfig:
    """Sizes of the embedder; the defaults are those of Gemma 4 12B.

    Attributes:
        patch: side of a patch in pixels.
        width: of a patch before it is projected to the decoder's.
        places: rows and columns for which the model has learned positions.
        max_soft_tokens: budget of a picture, one a patch; published models know 70, 140, 280, 560 and 1120.
    """

    KIND: ClassVar[str] = "patches"

    patch: int = 48
    width: int = 3840
    places: int = 1120
    norm_epsilon: float = 1e-6
    max_soft_tokens: int = 280

    def __post_init__(self) -> None:
        """Checks sizes."""
        require_whole(patch=self.patch, width=self.width, places=self.places, max_soft_tokens=self.max_soft_tokens)
        require_numbers(norm_epsilon=self.norm_epsilon)


def prepare(picture: UInt8[np.ndarray, "H W 3"], config: PatchesConfig) -> Patches:
    """The picture in patches, resized to what the budget allows.

    Raises:
        BadInput: when it is too thin for that.
    """
    return cut(picture, patch=config.patch, group=1, budget=config.max_soft_tokens, places=config.places)


def soft_tokens(prepared: Patches, config: PatchesConfig) -> int:
    """Places that the picture takes among the tokens."""
    return int(prepared.valid.sum())


class PatchEmbedder(nnx.Module):
    """A projection of pixels and a learned place, between norms, and the projection to the decoder's width."""

    def __init__(self, vision: PatchesConfig, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        pixels, width = 3 * vision.patch**2, vision.width
        self.pixel_norm = LayerNorm(pixels, epsilon=LAYER_NORM_EPSILON)
        self.embed = Linear((pixels, width), (None, "embed"), dtype=dtype, rngs=rngs)
        self.patch_norm, self.place_norm = (LayerNorm(width, epsilon=LAYER_NORM_EPSILON) for _ in range(2))
        self.places = param(rngs.params(), (vision.places, 2, width), (None, None, "embed"), 0.02)
        self.project = param(rngs.params(), (width, config.embed_dim), (None, "embed"), width**-0.5)
        self.vision, self.dtype = vision, dtype

    def __call__(self, pictures: Patches) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
        """Soft tokens of each picture, and which of them are there."""
        column, row = jnp.unstack(pictures.positions, axis=-1)
        x = self.patch_norm(self.embed(self.pixel_norm(pictures.fractions)))
        x = self.place_norm(x + self.places[column, 0] + self.places[row, 1])
        return matmul(rms_norm(x, None, self.vision.norm_epsilon), self.project[...], self.dtype), pictures.valid
