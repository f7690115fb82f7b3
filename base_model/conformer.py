"""Sounds in: the conformer of Gemma 4, after USM (Zhang et al. 2023), from log-mel frames to soft tokens of 40 ms.

Left out is the published code's clipping of activations at 1e10, which no finite sound comes near.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32

from base_model.checks import require_flags, require_numbers, require_whole
from base_model.clipped import ClippedLinear
from base_model.config import ModelConfig
from base_model.layers import RMSNorm, constant, matmul, param, rms_norm
from base_model.local_attention import local_attention, sinusoids
from base_model.log_mel import log_mel
from base_model.sounds import require_room
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class ConformerConfig:
    """Sizes of the encoder; the defaults are those of Gemma 4 E2B and E4B.

    Attributes:
        bands: mel bands of a frame of 10 ms.
        channels: of the two convolutions, each of which halves frames and bands.
        width: of a frame from then on.
        layers: conformer layers.
        heads: of their attention.
        window: a frame sees itself and the `window` - 1 frames before it. The published attention_context_left is one
            more in transformers' reading, which is the default here, and just that in DeepMind's own code.
        logit_cap: soft cap on attention logits.
        kernel: frames of the light convolution.
        residual_weight: of the two MLPs of a layer.
        output_dim: width of a soft token before it is projected to the decoder's.
        clipped: linear layers stand between stored bounds.
        max_soft_tokens: of one sound, 25 a second.
    """

    KIND: ClassVar[str] = "conformer"

    bands: int = 128
    channels: tuple[int, int] = (128, 32)
    width: int = 1024
    layers: int = 12
    heads: int = 8
    window: int = 12
    logit_cap: float = 50.0
    kernel: int = 5
    residual_weight: float = 0.5
    output_dim: int = 1536
    clipped: bool = True
    norm_epsilon: float = 1e-6
    max_soft_tokens: int = 750

    def __post_init__(self) -> None:
        """Checks sizes, and that bands and width divide as they must."""
        first, second = self.channels
        require_whole(
            bands=self.bands, channels=first, width=self.width, layers=self.layers, heads=self.heads,
            window=self.window, kernel=self.kernel, output_dim=self.output_dim, max_soft_tokens=self.max_soft_tokens,
        )  # fmt: skip
        require_whole(channels=second)
        require_flags(clipped=self.clipped)
        require_numbers(logit_cap=self.logit_cap, residual_weight=self.residual_weight, norm_epsilon=self.norm_epsilon)
        if self.bands % 4 or self.width % (2 * self.heads):
            raise BadInput(
                f"bands ({self.bands}) must be a multiple of 4 and width ({self.width}) one of twice the heads "
                f"({self.heads})"
            )


class Spectrogram(NamedTuple):
    """Log-mel frames, and which of them are there: NumPy's arrays on the host, JAX's on devices."""

    mel: Float[Any, "*N frames bands"]
    valid: Bool[Any, "*N frames"]


def prepare(wave: Float32[np.ndarray, " samples"], config: ConformerConfig) -> Spectrogram:
    """One sound as the encoder reads it.

    Raises:
        BadInput: when it is shorter than a frame or has more than `max_soft_tokens`.
    """
    mel = log_mel(wave, config.bands)
    sound = Spectrogram(mel, np.ones(len(mel), bool))
    require_room(wave, soft_tokens(sound, config), config.max_soft_tokens)
    return sound


def soft_tokens(prepared: Spectrogram, config: ConformerConfig) -> int:
    """Places that the sound takes among the tokens."""
    return int(prepared.valid[::4].sum())


class Subsampling(nnx.Module):
    """Two 3x3 convolutions with stride 2, each with a layer norm over its channels and a ReLU, and a projection."""

    def __init__(self, audio: ConformerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """He initialisation."""
        sizes = (1, *audio.channels)
        self.kernels = nnx.List(
            param(rngs.params(), (3, 3, fan_in, fan_out), (None, None, None, None), (2 / (9 * fan_in)) ** 0.5)
            for fan_in, fan_out in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.norms = nnx.List(constant(1.0, (size,), (None,)) for size in audio.channels)
        flat = audio.bands // 4 * audio.channels[-1]
        self.project = param(rngs.params(), (flat, audio.width), (None, "embed"), flat**-0.5)
        self.audio, self.dtype = audio, dtype

    def __call__(self, sounds: Spectrogram) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
        """A fourth of the frames, rounded up, and which of them are there.

        What is not there is silenced before each convolution, so that padding reaches no frame that is.
        """
        x, valid = sounds.mel[..., None], sounds.valid
        for kernel, weight in zip(self.kernels, self.norms, strict=True):
            x = jnp.where(valid[..., None, None], x, 0.0)
            x = jax.lax.conv_general_dilated(
                x.astype(self.dtype), kernel[...].astype(self.dtype), window_strides=(2, 2),
                padding=((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
            x = x.astype(jnp.float32)
            x = jax.nn.relu(rms_norm(x - x.mean(-1, keepdims=True), weight[...], self.audio.norm_epsilon))
            valid = valid[:, ::2]
        return matmul(x.reshape(*x.shape[:2], -1), self.project[...], self.dtype), valid


class Feedforward(nnx.Module):
    """x + residual_weight * norm(silu(norm(x) up) down), one of the two half-steps around attention."""

    def __init__(self, audio: ConformerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        width = audio.width
        self.norm, self.post_norm = _norm(audio), _norm(audio)
        self.up = ClippedLinear((width, 4 * width), ("embed", "mlp"), clipped=audio.clipped, dtype=dtype, rngs=rngs)
        self.down = ClippedLinear((4 * width, width), ("mlp", "embed"), clipped=audio.clipped, dtype=dtype, rngs=rngs)
        self.residual_weight = audio.residual_weight

    def __call__(self, x: Float[Array, "N S D"]) -> Float[Array, "N S D"]:
        """Applies the half-step to every frame."""
        return x + self.residual_weight * self.post_norm(self.down(jax.nn.silu(self.up(self.norm(x)))))


class LocalAttention(nnx.Module):
    """x + norm(out(attention(norm(x)))), with learned factors on the queries' dimensions."""

    def __init__(self, audio: ConformerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation; the queries' factors start so that softplus gives ln 2."""
        width = audio.width
        linear = lambda axes: ClippedLinear((width, width), axes, clipped=audio.clipped, dtype=dtype, rngs=rngs)  # noqa: E731
        self.norm, self.post_norm = _norm(audio), _norm(audio)
        self.query, self.key, self.value = (linear(("embed", "heads")) for _ in range(3))
        self.out = linear(("heads", "embed"))
        self.relative = param(rngs.params(), (width, width), ("embed", "heads"), width**-0.5)
        self.query_scale = constant(0.0, (width // audio.heads,), (None,))
        self.audio, self.dtype = audio, dtype

    def __call__(self, x: Float[Array, "N S D"], valid: Bool[Array, "N S"]) -> Float[Array, "N S D"]:
        """Mixes each frame with those in its window."""
        audio = self.audio
        heads = lambda y: y.reshape(*y.shape[:-1], audio.heads, -1)  # noqa: E731
        normed = self.norm(x)
        # Both factors are in units of ln 2, and the keys' is the value that the queries' would have at one.
        scale = jax.nn.softplus(self.query_scale[...]) / math.log(2) * (audio.width // audio.heads) ** -0.5
        mixed = local_attention(
            heads(self.query(normed)) * scale,
            heads(self.key(normed)) * math.log2(1 + math.e),
            heads(self.value(normed)),
            heads(matmul(jnp.asarray(sinusoids(audio.window, audio.width)), self.relative[...], self.dtype)),
            valid,
            cap=audio.logit_cap,
        )
        return x + self.post_norm(self.out(mixed.reshape(x.shape)))


class LightConvolution(nnx.Module):
    """x + out(silu(norm(depthwise(glu(in(norm(x))))))), where a frame hears itself and those before it."""

    def __init__(self, audio: ConformerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        width, kernel = audio.width, audio.kernel
        self.norm, self.inner_norm = _norm(audio), _norm(audio)
        self.start = ClippedLinear((width, 2 * width), ("embed", "mlp"), clipped=audio.clipped, dtype=dtype, rngs=rngs)
        self.kernel = param(rngs.params(), (kernel, width), (None, None), kernel**-0.5)
        self.end = ClippedLinear((width, width), ("mlp", "embed"), clipped=audio.clipped, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N S D"]) -> Float[Array, "N S D"]:
        """Mixes each frame with the few before it, one channel at a time."""
        gated = jax.nn.glu(self.start(self.norm(x)))
        kernel = self.kernel[...]
        past = jnp.pad(gated, ((0, 0), (len(kernel) - 1, 0), (0, 0)))
        taps = (tap * past[:, start : start + x.shape[1]] for start, tap in enumerate(kernel))
        mixed = sum(taps, start=jnp.zeros_like(x))
        return x + self.end(jax.nn.silu(self.inner_norm(mixed)))


class Layer(nnx.Module):
    """Half an MLP, attention, convolution, the other half, and a norm (Gulati et al. 2020)."""

    def __init__(self, audio: ConformerConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        """Builds the parts."""
        self.before, self.after = (Feedforward(audio, dtype=dtype, rngs=rngs) for _ in range(2))
        self.attention = LocalAttention(audio, dtype=dtype, rngs=rngs)
        self.convolution = LightConvolution(audio, dtype=dtype, rngs=rngs)
        self.norm = _norm(audio)

    def __call__(self, x: Float[Array, "N S D"], valid: Bool[Array, "N S"]) -> Float[Array, "N S D"]:
        """One layer."""
        return self.norm(self.after(self.convolution(self.attention(self.before(x), valid))))


class Conformer(nnx.Module):
    """Log-mel frames to soft tokens, one for four frames."""

    def __init__(self, audio: ConformerConfig, config: ModelConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        """Fan-in initialisation."""
        self.subsampling = Subsampling(audio, dtype=dtype, rngs=rngs)
        self.layers = nnx.List(Layer(audio, dtype=dtype, rngs=rngs) for _ in range(audio.layers))
        self.out = param(rngs.params(), (audio.width, audio.output_dim), ("embed", None), audio.width**-0.5)
        self.bias = constant(0.0, (audio.output_dim,), (None,))
        self.project = param(
            rngs.params(), (audio.output_dim, config.embed_dim), (None, "embed"), audio.output_dim**-0.5
        )
        self.audio, self.dtype = audio, dtype

    def encode(self, sounds: Spectrogram) -> tuple[Float[Array, "N S M"], Bool[Array, "N S"]]:
        """Soft tokens before they are projected to the decoder's width, and which of them are there."""
        x, valid = self.subsampling(sounds)
        for layer in self.layers:
            x = layer(x, valid)
        return matmul(x, self.out[...], self.dtype) + self.bias[...], valid

    def __call__(self, sounds: Spectrogram) -> tuple[Float[Array, "N S D"], Bool[Array, "N S"]]:
        """Soft tokens of each sound in the decoder's width, and which of them are there."""
        x, valid = self.encode(sounds)
        return matmul(rms_norm(x, None, self.audio.norm_epsilon), self.project[...], self.dtype), valid


def _norm(audio: ConformerConfig) -> RMSNorm:
    return RMSNorm(audio.width, epsilon=audio.norm_epsilon, offset=0.0)
