"""Sounds in without an encoder: each 40 ms of the wave itself is projected to a soft token (Gemma 4 unified)."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32

from base_model.checks import require_numbers, require_whole
from base_model.config import ModelConfig
from base_model.layers import matmul, param, rms_norm
from base_model.sounds import require_room


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    """Sizes of the frames; the defaults are those of Gemma 4 12B.

    Attributes:
        samples: of one frame, at 16 kHz.
        max_soft_tokens: of one sound, one a frame.
    """

    KIND: ClassVar[str] = "frames"

    samples: int = 640
    norm_epsilon: float = 1e-6
    max_soft_tokens: int = 750

    def __post_init__(self) -> None:
        """Checks sizes."""
        require_whole(samples=self.samples, max_soft_tokens=self.max_soft_tokens)
        require_numbers(norm_epsilon=self.norm_epsilon)


class Frames(NamedTuple):
    """Pieces of a wave one after another, and which of them are there: NumPy's arrays on the host, JAX's on devices."""

    samples: Float[Any, "*N frames samples"]
    valid: Bool[Any, "*N frames"]


def prepare(wave: Float32[np.ndarray, " samples"], config: FramesConfig) -> Frames:
    """One sound in frames, the last one filled up with silence.

    Raises:
        BadInput: when it has more than `max_soft_tokens`.
    """
    samples = np.pad(wave, (0, -len(wave) % config.samples)).reshape(-1, config.samples)
    sound = Frames(samples, np.ones(len(samples), bool))
    require_room(wave, soft_tokens(sound, config), config.max_soft_tokens)
    return sound


def soft_tokens(prepared: Frames, config: FramesConfig) -> int:
    """Places that the sound takes among the tokens."""
    return int(prepared.valid.sum())


class FrameEmbedder(nnx.Module):
    """A norm and a projection."""

    def __init__(self, audio: FramesConfig, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        self.project = param(rngs.params(), (audio.samples, config.embed_dim), (None, "embed"), audio.samples**-0.5)
        self.audio, self.dtype = audio, dtype

    def __call__(self, sounds: Frames) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
        """Soft tokens of each sound, and which of them are there."""
        normed = rms_norm(sounds.samples, None, self.audio.norm_epsilon)
        return matmul(normed, self.project[...], self.dtype), sounds.valid
