"""The shape of a multimodal decoder: one attention specification a layer, and the towers in front of it.

Gemma 4 is the family; Gemma 3 and the shipped tiny model are other values of the same fields.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import BadInput


def _require_whole(**fields: Any) -> None:
    """Checks sizes, which may come from a file and so be anything."""
    for name, value in fields.items():
        if type(value) is not int or not 1 <= value < 2**31:
            raise BadInput(f"{name} is a whole number from 1, not {value!r:.40}")


def _require_numbers(**fields: Any) -> None:
    for name, value in fields.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise BadInput(f"{name} is a number, not {value!r:.40}")


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One decoder layer.

    Attributes:
        window: sliding window in tokens (query - key < window), or None for global attention.
        rope_theta: base of the rotary frequencies.
        rope_fraction: share of the head's angles that rotate ("proportional" RoPE); the rest stay still.
        rope_scale: positions are divided by it (linear scaling).
        mlp_dim: hidden width of the gated MLP.
    """

    window: int | None = None
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rope_fraction: float = 1.0
    rope_scale: float = 1.0
    mlp_dim: int

    def __post_init__(self) -> None:
        """Checks that the heads can share keys and that rotary halves exist."""
        window = 1 if self.window is None else self.window
        _require_whole(
            window=window, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, mlp_dim=self.mlp_dim
        )
        _require_numbers(rope_theta=self.rope_theta, rope_fraction=self.rope_fraction, rope_scale=self.rope_scale)
        if self.heads % self.kv_heads:
            raise BadInput(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise BadInput(f"head_dim must be even for rotary embeddings, not {self.head_dim}")


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A convolutional patch encoder: overlapping stride-2 stages, then groups of cells projected to soft tokens.

    Attributes:
        image_size: side in pixels to which every picture is resized.
        channels: output channels of each stride-2 3x3 stage.
        grid: soft tokens a side; an image becomes grid * grid soft tokens.
    """

    image_size: int = 64
    channels: tuple[int, ...] = (24, 48, 96)
    grid: int = 4

    def __post_init__(self) -> None:
        """Checks that the last stage's cells divide evenly into the grid."""
        _require_whole(image_size=self.image_size, grid=self.grid, channels=len(self.channels))
        for number in self.channels:
            _require_whole(channels=number)
        if self.image_size % (2 ** len(self.channels)) or self.cells % self.grid:
            raise BadInput(
                f"an image of {self.image_size} pixels through {len(self.channels)} stride-2 stages "
                f"leaves {self.cells} cells a side, which {self.grid} soft tokens a side do not divide"
            )

    @property
    def cells(self) -> int:
        """Feature cells a side after the last stage."""
        return self.image_size // 2 ** len(self.channels)

    @property
    def soft_tokens(self) -> int:
        """Soft tokens of one picture."""
        return self.grid * self.grid


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only Transformer with the towers of its modalities.

    Attributes:
        query_scale: factor on query-key products (Gemma 4: 1.0; Gemma 3: query_pre_attn_scalar ** -0.5).
        final_logit_cap: soft cap tanh(x / cap) * cap on the logits, or None.
        norm_offset: added to every RMSNorm weight (Gemma 3 stores w - 1, so 1.0; Gemma 4 stores w, so 0.0).
        post_norms: a norm after attention and after the MLP too, four a layer.
        value_norm: RMSNorm without weight on the values (Gemma 4).
        image_attention: "causal", or "bidirectional" between the soft tokens of one picture.
        max_context: longest sequence in tokens.
    """

    vocab_size: int
    embed_dim: int
    layers: tuple[LayerSpec, ...]
    query_scale: float = 1.0
    final_logit_cap: float | None = 30.0
    norm_offset: float = 0.0
    norm_epsilon: float = 1e-6
    post_norms: bool = True
    value_norm: bool = True
    image_attention: str = "causal"
    max_context: int = 512
    vision: VisionConfig | None = None

    def __post_init__(self) -> None:
        """Checks sizes, the choice of image attention and that there is a layer."""
        _require_whole(vocab_size=self.vocab_size, embed_dim=self.embed_dim, max_context=self.max_context)
        _require_numbers(
            query_scale=self.query_scale, norm_offset=self.norm_offset, norm_epsilon=self.norm_epsilon,
            final_logit_cap=1 if self.final_logit_cap is None else self.final_logit_cap,
        )  # fmt: skip
        if self.image_attention not in ("causal", "bidirectional"):
            raise BadInput(f"image_attention must be 'causal' or 'bidirectional', not {self.image_attention!r}")
        if not self.layers:
            raise BadInput("a decoder needs at least one layer")

    def to_json(self) -> str:
        """The config as stable, indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        """Rebuilds a config from parsed JSON.

        Raises:
            BadInput: for a field that is missing, unknown or of a wrong shape.
        """
        try:
            values = dict(values)
            values["layers"] = tuple(LayerSpec(**layer) for layer in values["layers"])
            if vision := values.get("vision"):
                values["vision"] = VisionConfig(**{**vision, "channels": tuple(vision["channels"])})
            return cls(**values)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise BadInput(f"config.json does not describe a model that this version knows: {error}") from error


def read_config(path: Path) -> dict:
    """Parses the config.json of a checkpoint folder.

    Raises:
        BadInput: when the file is missing or not a JSON object.
    """
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path.parent} is not a checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(description, dict):
        raise BadInput(f"{path} holds a {type(description).__name__}, and a checkpoint is described by a JSON object")
    return description


def tiny(vocab_size: int = 4096) -> ModelConfig:
    """The shipped model: width 256, four layers, one key-value head, about 4 million parameters."""
    local = LayerSpec(window=64, heads=4, kv_heads=1, head_dim=64, mlp_dim=704)
    layers = (local, local, local, dataclasses.replace(local, window=None, rope_theta=1e6))
    return ModelConfig(
        vocab_size=vocab_size, embed_dim=256, layers=layers, query_scale=0.15, max_context=512, vision=VisionConfig()
    )


def nano_1() -> ModelConfig:
    """1.8 billion parameters: the size of the Gemini report's Nano-1, in dimensions of our own, for text alone."""
    return _nano(layers=21, mlp_dim=8192)


def nano_2() -> ModelConfig:
    """3.25 billion parameters: the size of the Gemini report's Nano-2, in dimensions of our own, for text alone."""
    return _nano(layers=32, mlp_dim=12_288)


def _nano(*, layers: int, mlp_dim: int) -> ModelConfig:
    layer = LayerSpec(heads=8, kv_heads=1, head_dim=256, rope_theta=1e6, mlp_dim=mlp_dim)
    return ModelConfig(
        vocab_size=262_144, embed_dim=2048, layers=(layer,) * layers, query_scale=256**-0.5, max_context=32_768
    )
