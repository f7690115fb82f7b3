"""Shapes with a name: the shipped model, those of the Gemini report in dimensions of our own, and published Gemmas.

The report gives two sizes and no dimensions: what stands here is plausible, and not recovered.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from base_model.config import LayerSpec, ModelConfig
from base_model.conformer import ConformerConfig
from base_model.gemma import GLOBAL, LOCAL, model_config
from base_model.vision import VisionConfig


def tiny(vocab_size: int = 4096) -> ModelConfig:
    """The shipped model: width 256, four layers, one key-value head, about 4 million parameters."""
    local = LayerSpec(window=64, heads=4, kv_heads=1, head_dim=64, mlp_dim=704)
    layers = (local, local, local, replace(local, window=None, rope_theta=1e6))
    return ModelConfig(
        vocab_size=vocab_size, embed_dim=256, layers=layers, query_scale=0.15, max_context=512, vision=VisionConfig()
    )


def tiny_quarter(vocab_size: int = 4096) -> ModelConfig:
    """A quarter of the shipped model's parameters, for a student of it: half the width, two layers."""
    local = LayerSpec(window=64, heads=4, kv_heads=1, head_dim=32, mlp_dim=448)
    layers = (local, replace(local, window=None, rope_theta=1e6))
    return replace(tiny(vocab_size), embed_dim=128, layers=layers, query_scale=0.2)


def tiny_omni(vocab_size: int = 4096) -> ModelConfig:
    """The shipped model's shape with an encoder of sounds."""
    audio = ConformerConfig(
        bands=64, channels=(16, 8), width=96, layers=2, heads=4, output_dim=96, clipped=False, max_soft_tokens=64
    )
    return replace(tiny(vocab_size), audio=audio)


def nano_1() -> ModelConfig:
    """1.8 billion parameters: the size of the report's Nano-1, for text alone."""
    return _dense(layers=21, embed_dim=2048, heads=8, mlp_dim=8192)


def nano_2() -> ModelConfig:
    """3.25 billion parameters: the size of the report's Nano-2, for text alone."""
    return _dense(layers=32, embed_dim=2048, heads=8, mlp_dim=12_288)


def pro() -> ModelConfig:
    """47 billion parameters for text alone. The report says nothing of Pro's size: this is one that a pod serves."""
    return _dense(layers=48, embed_dim=8192, heads=32, mlp_dim=32_768)


def ultra() -> ModelConfig:
    """366 billion parameters for text alone. The report says nothing of Ultra's size."""
    return _dense(layers=96, embed_dim=16_384, heads=64, mlp_dim=65_536)


def _dense(*, layers: int, embed_dim: int, heads: int, mlp_dim: int) -> ModelConfig:
    layer = LayerSpec(heads=heads, kv_heads=1, head_dim=256, rope_theta=1e6, mlp_dim=mlp_dim)
    return ModelConfig(
        vocab_size=262_144, embed_dim=embed_dim, layers=(layer,) * layers, query_scale=256**-0.5, max_context=32_768
    )


def gemma_3_270m() -> ModelConfig:
    """Gemma 3 270M, text."""
    return _gemma_3_text(hidden_size=640, intermediate_size=2048, num_hidden_layers=18)


def gemma_3_1b() -> ModelConfig:
    """Gemma 3 1B, text."""
    return _gemma_3_text(hidden_size=1152, intermediate_size=6912, num_hidden_layers=26)


def gemma_3_4b() -> ModelConfig:
    """Gemma 3 4B, text and pictures."""
    return _gemma_3(hidden_size=2560, intermediate_size=10_240, num_hidden_layers=34)


def gemma_3_12b() -> ModelConfig:
    """Gemma 3 12B, text and pictures."""
    heads = {"num_attention_heads": 16, "num_key_value_heads": 8}
    return _gemma_3(hidden_size=3840, intermediate_size=15_360, num_hidden_layers=48, **heads)


def gemma_3_27b() -> ModelConfig:
    """Gemma 3 27B, text and pictures."""
    heads = {"num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168}
    return _gemma_3(hidden_size=5376, intermediate_size=21_504, num_hidden_layers=62, **heads)


def gemma_4_e2b() -> ModelConfig:
    """Gemma 4 E2B: text, pictures, clips and sounds; every layer has embeddings of its own, the last 20 share keys."""
    text = {"num_hidden_layers": 35, "layer_types": ([LOCAL] * 4 + [GLOBAL]) * 7, "num_key_value_heads": 1}
    shared = {"num_kv_shared_layers": 20, "use_double_wide_mlp": True}
    return _gemma_4(hidden_size=1536, intermediate_size=6144, **text, **shared, towers=_SMALL_TOWERS)


def gemma_4_e4b() -> ModelConfig:
    """Gemma 4 E4B: the same in a larger size, the last 18 layers share keys."""
    text = {"num_hidden_layers": 42, "num_key_value_heads": 2, "num_kv_shared_layers": 18}
    return _gemma_4(hidden_size=2560, intermediate_size=10_240, **text, towers=_SMALL_TOWERS)


def gemma_4_12b() -> ModelConfig:
    """Gemma 4 12B: text, pictures, clips and sounds without encoders."""
    text = {"num_hidden_layers": 48, "num_attention_heads": 16, "num_key_value_heads": 8}
    towers = {"model_type": "gemma4_unified", "vision_config": {}, "audio_config": {}}
    return _gemma_4(hidden_size=3840, intermediate_size=15_360, num_global_key_value_heads=1, **text, towers=towers)


def gemma_4_26b_a4b() -> ModelConfig:
    """Gemma 4 26B-A4B: text, pictures and clips; 128 experts beside the MLP, eight of which read a token."""
    text = {"num_hidden_layers": 30, "num_attention_heads": 16, "num_key_value_heads": 8}
    experts = {"enable_moe_block": True, "num_experts": 128, "top_k_experts": 8, "moe_intermediate_size": 704}
    heads = {"num_global_key_value_heads": 2}
    return _gemma_4(hidden_size=2816, intermediate_size=2112, **text, **experts, **heads, towers=_LARGE_TOWERS)


def gemma_4_31b() -> ModelConfig:
    """Gemma 4 31B: text, pictures and clips."""
    text = {"num_hidden_layers": 60, "num_attention_heads": 32, "num_key_value_heads": 16}
    return _gemma_4(
        hidden_size=5376, intermediate_size=21_504, num_global_key_value_heads=4, **text, towers=_LARGE_TOWERS
    )


# All of them, by the names that commands and documents give them.
SIZES: dict[str, Callable[[], ModelConfig]] = {
    "tiny": tiny, "tiny-quarter": tiny_quarter, "tiny-omni": tiny_omni,
    "nano-1": nano_1, "nano-2": nano_2, "pro": pro, "ultra": ultra,
    "gemma-3-270m": gemma_3_270m, "gemma-3-1b": gemma_3_1b, "gemma-3-4b": gemma_3_4b, "gemma-3-12b": gemma_3_12b,
    "gemma-3-27b": gemma_3_27b,
    "gemma-4-e2b": gemma_4_e2b, "gemma-4-e4b": gemma_4_e4b, "gemma-4-12b": gemma_4_12b,
    "gemma-4-26b-a4b": gemma_4_26b_a4b, "gemma-4-31b": gemma_4_31b,
}  # fmt: skip


_SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
_SMALL_TOWERS = {"model_type": "gemma4", "vision_config": {"use_clipped_linears": True}, "audio_config": {}}
_LARGE_TOWERS = {
    "model_type": "gemma4",
    "vision_config": _SIGLIP | {"num_key_value_heads": 16, "head_dim": 72, "standardize": True},
}


def _gemma_3_text(**text: Any) -> ModelConfig:
    sizes = {"vocab_size": 262_144, "num_attention_heads": 4, "num_key_value_heads": 1}
    return model_config(
        {"model_type": "gemma3_text", "sliding_window": 512, "max_position_embeddings": 32_768, **sizes, **text}
    )


def _gemma_3(**text: Any) -> ModelConfig:
    vision = _SIGLIP | {"image_size": 896, "patch_size": 14}
    text = {"sliding_window": 1024, "rope_scaling": {"rope_type": "linear", "factor": 8.0}} | text
    return model_config(
        {"model_type": "gemma3", "mm_tokens_per_image": 256, "text_config": text, "vision_config": vision}
    )


def _gemma_4(*, towers: dict[str, Any], **text: Any) -> ModelConfig:
    """The large models attend to keys as values in global layers and in both directions inside pictures."""
    text = {"final_logit_softcapping": 30.0} | text
    if "num_global_key_value_heads" in text:
        large = {"attention_k_eq_v": True, "use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0}
        text = large | {"sliding_window": 1024, "max_position_embeddings": 262_144} | text
    return model_config({**towers, "text_config": text})
