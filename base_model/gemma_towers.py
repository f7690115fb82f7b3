"""The picture and sound encoders of a published config.json as configs of ours, and back: one table of names each."""

from collections.abc import Mapping
from typing import Any

from base_model.conformer import ConformerConfig
from base_model.frames import FramesConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.patches import PatchesConfig
from base_model.siglip import SiglipConfig
from training.errors import BadInput

# Our field -> theirs.
_LAYERS = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
_SIGLIP = _LAYERS | {
    "image_size": "image_size",
    "patch": "patch_size",
    "mlp_dim": "intermediate_size",
    "norm_epsilon": "layer_norm_eps",
}
_VISION = _LAYERS | {
    "patch": "patch_size",
    "pool": "pooling_kernel_size",
    "head_dim": "head_dim",
    "mlp_dim": "intermediate_size",
    "places": "position_embedding_size",
    "clipped": "use_clipped_linears",
    "standardised": "standardize",
    "norm_epsilon": "rms_norm_eps",
}
_CONFORMER = _LAYERS | {
    "channels": "subsampling_conv_channels",
    "logit_cap": "attention_logit_cap",
    "kernel": "conv_kernel_size",
    "residual_weight": "residual_weight",
    "output_dim": "output_proj_dims",
    "clipped": "use_clipped_linears",
    "norm_epsilon": "rms_norm_eps",
}
_PATCHES = {"width": "mm_embed_dim", "places": "mm_posemb_size", "norm_epsilon": "rms_norm_eps"}
_FRAMES = {"samples": "audio_embed_dim", "norm_epsilon": "rms_norm_eps"}


def vision_config(kind: str, description: Mapping[str, Any]) -> Any:
    """The config of the picture encoder, None if there is none.

    Args:
        kind: family of the model.
        description: the whole config.json.
    """
    published = description.get("vision_config")
    if published is None:
        return None
    if kind == "gemma3":
        soft_tokens = description.get("mm_tokens_per_image", 256)
        return SiglipConfig(**_ours(_SIGLIP, published), grid=round(soft_tokens**0.5))
    budget = {"max_soft_tokens": description.get("vision_soft_tokens_per_image", 280)}
    if kind == "gemma4_unified":
        patch = published.get("patch_size", 16) * published.get("pooling_kernel_size", 3)
        return PatchesConfig(**_ours(_PATCHES, published), patch=patch, **budget)
    theta = (published.get("rope_parameters") or {}).get("rope_theta", 100.0)
    fields = {"clipped": False} | _ours(_VISION, published)
    return Gemma4VisionConfig(**fields, rope_theta=float(theta), **budget)


def audio_config(kind: str, description: Mapping[str, Any]) -> Any:
    """The config of the sound encoder, None if there is none."""
    published = description.get("audio_config")
    if published is None or kind == "gemma3":
        return None
    if kind == "gemma4_unified":
        return FramesConfig(**_ours(_FRAMES, published))
    if published.get("attention_context_right", 0) != 0:
        raise BadInput("an audio encoder with attention_context_right is not supported: sounds are read forwards")
    window = published.get("attention_context_left", 13) - 1
    if published.get("attention_chunk_size", window) != window:
        raise BadInput("an audio encoder is supported only where attention_chunk_size is attention_context_left less 1")
    fields = _ours(_CONFORMER, published)
    if "channels" in fields:
        fields["channels"] = tuple(fields["channels"])
    return ConformerConfig(**fields, window=window)


def describe_towers(vision: Any, audio: Any) -> dict[str, Any]:
    """What the config.json of a model with these encoders says of them.

    Raises:
        BadInput: for an encoder that no published model has.
    """
    description: dict[str, Any] = {}
    if isinstance(vision, SiglipConfig):
        description["mm_tokens_per_image"] = vision.grid**2
        description["vision_config"] = _theirs(_SIGLIP, vision) | {
            "model_type": "siglip_vision_model", "num_channels": 3, "hidden_act": "gelu_pytorch_tanh",
            "vision_use_head": False,
        }  # fmt: skip
    elif isinstance(vision, Gemma4VisionConfig):
        description["vision_config"] = _theirs(_VISION, vision) | {
            "model_type": "gemma4_vision", "num_key_value_heads": vision.heads,
            "rope_parameters": {"rope_type": "axial", "rope_theta": vision.rope_theta},
        }  # fmt: skip
    elif isinstance(vision, PatchesConfig):
        sizes = {"patch_size": vision.patch // 3, "pooling_kernel_size": 3, "output_proj_dims": vision.width}
        description["vision_config"] = _theirs(_PATCHES, vision) | {"model_type": "gemma4_unified_vision", **sizes}
    elif vision is not None:
        raise BadInput(f"no published model has the picture encoder {type(vision).__name__}")
    if isinstance(vision, Gemma4VisionConfig | PatchesConfig):
        description["vision_soft_tokens_per_image"] = vision.max_soft_tokens
    if isinstance(audio, ConformerConfig):
        # transformers takes the number of relative positions from both sizes.
        context = {"attention_context_left": audio.window + 1, "attention_context_right": 0,
                   "attention_chunk_size": audio.window}  # fmt: skip
        description["audio_config"] = _theirs(_CONFORMER, audio) | {"model_type": "gemma4_audio", **context}
    elif isinstance(audio, FramesConfig):
        description["audio_config"] = _theirs(_FRAMES, audio) | {"model_type": "gemma4_unified_audio"}
    elif vision is not None and not isinstance(vision, SiglipConfig):
        description["audio_config"] = None
    return description


def _ours(names: Mapping[str, str], published: Mapping[str, Any]) -> dict[str, Any]:
    return {ours: published[theirs] for ours, theirs in names.items() if theirs in published}


def _theirs(names: Mapping[str, str], config: Any) -> dict[str, Any]:
    return {theirs: getattr(config, ours) for ours, theirs in names.items()}
