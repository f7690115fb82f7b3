"""The shape of a multimodal decoder: one attention specification a layer, and the towers in front of it.

Gemma 4 is the family; Gemma 3 and the shipped tiny model are other values of the same fields.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

from base_model.checks import require_flags, require_numbers, require_whole
from training.digest import bytes_digest
from training.errors import BadInput, Refused

IMAGE_ATTENTION = ("causal", "bidirectional", "bidirectional-local")
# The kind of an encoder whose JSON names none: ours came first, when there was but one.
UNNAMED = "convolutional"


@dataclass(frozen=True, kw_only=True)
class ExpertsSpec:
    """Experts beside a layer's MLP.

    Attributes:
        count: how many there are.
        chosen: how many read each token.
        mlp_dim: hidden width of each.
    """

    count: int
    chosen: int
    mlp_dim: int

    def __post_init__(self) -> None:
        """Checks sizes, and that there are as many experts as read a token."""
        require_whole(count=self.count, chosen=self.chosen, mlp_dim=self.mlp_dim)
        if self.chosen > self.count:
            raise BadInput(f"{self.chosen} of {self.count} experts cannot be chosen")


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One decoder layer.

    Attributes:
        window: sliding window in tokens (query - key < window), or None for global attention.
        rope_theta: base of the rotary frequencies.
        rope_fraction: share of the head's angles that rotate ("proportional" RoPE); the rest stay still.
        rope_scale: positions are divided by it (linear scaling).
        mlp_dim: hidden width of the gated MLP.
        key_is_value: values are the keys' projection, before its norm and rotation.
        kv_source: number of an earlier layer whose keys and values this one reads; it has none of its own then.
        experts: experts beside the MLP, or None.
    """

    window: int | None = None
    heads: int
    kv_heads: int
    head_dim: int
    rope_theta: float = 10_000.0
    rope_fraction: float = 1.0
    rope_scale: float = 1.0
    mlp_dim: int
    key_is_value: bool = False
    kv_source: int | None = None
    experts: ExpertsSpec | None = None

    def __post_init__(self) -> None:
        """Checks that the heads can share keys and that rotary halves exist."""
        window = 1 if self.window is None else self.window
        require_whole(
            window=window, heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, mlp_dim=self.mlp_dim
        )
        require_numbers(rope_theta=self.rope_theta, rope_fraction=self.rope_fraction, rope_scale=self.rope_scale)
        require_flags(key_is_value=self.key_is_value)
        if self.heads % self.kv_heads:
            raise BadInput(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise BadInput(f"head_dim must be even for rotary embeddings, not {self.head_dim}")


@runtime_checkable
class TowerConfig(Protocol):
    """The sizes of an encoder of pictures or sounds: a dataclass beside the encoder. JSON knows it by its kind."""

    KIND: ClassVar[str]


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """What is taken of a video clip: frames, which the encoder of pictures reads.

    Attributes:
        rate: frames a second.
        max_frames: of a clip; a longer one is sampled more thinly.
        max_soft_tokens: budget of a frame, where it is another than that of a picture.
    """

    rate: float = 1.0
    max_frames: int = 32
    max_soft_tokens: int | None = None

    def __post_init__(self) -> None:
        """Checks the ranges."""
        require_whole(max_frames=self.max_frames, max_soft_tokens=self.max_soft_tokens or 1)
        require_numbers(rate=self.rate)
        if not self.rate > 0:
            raise BadInput(f"rate must be above 0 frames a second, not {self.rate}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A decoder-only Transformer with the towers of its modalities.

    Attributes:
        query_scale: factor on query-key products (Gemma 4: 1.0; Gemma 3: query_pre_attn_scalar ** -0.5).
        final_logit_cap: soft cap tanh(x / cap) * cap on the logits, or None.
        norm_offset: added to every RMSNorm weight (Gemma 3 stores w - 1, so 1.0; Gemma 4 stores w, so 0.0).
        post_norms: a norm after attention and after the MLP too, four a layer.
        value_norm: RMSNorm without weight on the values (Gemma 4).
        image_attention: "causal", "bidirectional" between the soft tokens of one picture, or "bidirectional-local":
            between them in the layers that have a window.
        layer_scalar: a saved factor on the residual stream after every layer (Gemma 4).
        per_layer_dim: width of the embeddings that each layer has of its own, 0 for none (Gemma 4 E2B and E4B).
        max_context: longest sequence in tokens.
        vision: the encoder of pictures.
        audio: the encoder of sounds.
        clips: what is taken of a video clip.
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
    layer_scalar: bool = False
    per_layer_dim: int = 0
    max_context: int = 512
    vision: TowerConfig | None = None
    audio: TowerConfig | None = None
    clips: ClipsConfig = ClipsConfig()

    def __post_init__(self) -> None:
        """Checks sizes, the choice of image attention and that there is a layer."""
        require_whole(vocab_size=self.vocab_size, embed_dim=self.embed_dim, max_context=self.max_context)
        require_numbers(
            query_scale=self.query_scale, norm_offset=self.norm_offset, norm_epsilon=self.norm_epsilon,
            final_logit_cap=1 if self.final_logit_cap is None else self.final_logit_cap,
        )  # fmt: skip
        if self.image_attention not in IMAGE_ATTENTION:
            raise BadInput(f"image_attention must be one of {', '.join(IMAGE_ATTENTION)}, not {self.image_attention!r}")
        require_flags(layer_scalar=self.layer_scalar)
        if self.per_layer_dim:
            require_whole(per_layer_dim=self.per_layer_dim)
        if not self.layers:
            raise BadInput("a decoder needs at least one layer")
        for number, layer in enumerate(self.layers):
            self._check_source(number, layer)

    def _check_source(self, number: int, layer: LayerSpec) -> None:
        """Checks that a layer which borrows keys and values finds them where it looks."""
        if (source := layer.kv_source) is None:
            return
        if type(source) is not int or not 0 <= source < number:
            raise BadInput(f"layer {number}: kv_source is the number of an earlier layer, not {source!r:.40}")
        lender = self.layers[source]
        if lender.kv_source is not None or (lender.kv_heads, lender.head_dim) != (layer.kv_heads, layer.head_dim):
            raise BadInput(f"layer {number} cannot read the keys of layer {source}, which has none of that shape")

    @property
    def frame_vision(self) -> Any:
        """Config of the encoder of pictures as it reads frames of a clip."""
        budget = self.clips.max_soft_tokens
        return self.vision if budget is None else dataclasses.replace(cast(Any, self.vision), max_soft_tokens=budget)

    def to_json(self) -> str:
        """The config as stable, indented JSON."""
        values = dataclasses.asdict(self)
        for name, tower in (("vision", self.vision), ("audio", self.audio)):
            if tower is not None and tower.KIND != UNNAMED:
                values[name]["kind"] = tower.KIND
        return json.dumps(values, indent=2, sort_keys=True) + "\n"


def read_config(path: Path, *, digest: str | None = None) -> dict:
    """Parses the config.json of a checkpoint folder.

    Raises:
        BadInput: when the file is missing or not a JSON object.
        Refused: when it is not the one of the digest, if that is given.
    """
    try:
        content = path.read_bytes()
        description = json.loads(content.decode("utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{path.parent} is not a checkpoint: it has no {path.name}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if digest not in (None, bytes_digest(content)):
        raise Refused(f"{path.parent} was changed between its check and its reading: config.json is another one")
    if not isinstance(description, dict):
        raise BadInput(f"{path} holds a {type(description).__name__}, and a checkpoint is described by a JSON object")
    return description
