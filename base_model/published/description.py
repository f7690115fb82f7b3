"""A ModelConfig as the config.json that published models of its shape have."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from base_model.config import LayerSpec, ModelConfig
from base_model.gemma import GLOBAL, LOCAL, model_config
from base_model.gemma_towers import describe_towers
from base_model.patches import PatchesConfig
from base_model.siglip import SiglipConfig
from base_model.tokenizer import BOS, EOS, PAD
from training.errors import BadInput


def describe(config: ModelConfig, tokens: Mapping[str, int]) -> dict[str, Any]:
    """The config.json of a model; what it says is read again and compared.

    Args:
        config: the model.
        tokens: ids of the control tokens of media by the names of `base_model.gemma.CONTROLS`.

    Raises:
        BadInput: naming what no published model has.
    """
    text = _text(config)
    description = text
    if towers := describe_towers(config.vision, config.audio):
        unified = isinstance(config.vision, PatchesConfig)
        family = "gemma4_unified" if unified else text["model_type"].removesuffix("_text")
        text["model_type"] = f"{family}_text"
        ending = "index" if family == "gemma3" else "id"
        ids = {f"{name}_token_{'index' if name == 'eoa' else ending}": number for name, number in tokens.items()}
        description = {"model_type": family, "text_config": text, "tie_word_embeddings": True, **towers, **ids}
    _require_same(config, model_config(description))
    return description


def _text(config: ModelConfig) -> dict[str, Any]:
    first = next((layer for layer in config.layers if layer.window is not None), config.layers[0])
    text = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.embed_dim,
        "intermediate_size": config.layers[0].mlp_dim,
        "num_hidden_layers": len(config.layers),
        "num_attention_heads": first.heads,
        "num_key_value_heads": first.kv_heads,
        "head_dim": first.head_dim,
        "layer_types": [_kind(layer) for layer in config.layers],
        "rope_parameters": {LOCAL: {"rope_type": "default", "rope_theta": 10_000.0}}
        | {_kind(layer): _rope(layer) for layer in config.layers},
        "max_position_embeddings": config.max_context,
        "rms_norm_eps": config.norm_epsilon,
        "final_logit_softcapping": config.final_logit_cap,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "pad_token_id": PAD,
        "eos_token_id": EOS,
        "bos_token_id": BOS,
    }
    if first.window is not None:
        text["sliding_window"] = first.window
    return text | (_gemma_3(config) if config.norm_offset else _gemma_4(config, first))


def _gemma_3(config: ModelConfig) -> dict[str, Any]:
    scalar = config.query_scale**-2
    # Published ones are whole, and their power of -1/2 is not always that of the rounded -2nd power.
    scalar = round(scalar) if round(scalar) ** -0.5 == config.query_scale else scalar
    return {"model_type": "gemma3_text", "query_pre_attn_scalar": scalar}


def _gemma_4(config: ModelConfig, first: LayerSpec) -> dict[str, Any]:
    borrowers = [layer for layer in config.layers if layer.kv_source is not None]
    experts = config.layers[0].experts
    return {
        "model_type": "gemma4_text",
        "per_layer_config": {
            str(number): {"head_dim": layer.head_dim, "num_key_value_heads": layer.kv_heads}
            for number, layer in enumerate(config.layers)
            if (layer.head_dim, layer.kv_heads) != (first.head_dim, first.kv_heads)
        },
        "attention_k_eq_v": any(layer.key_is_value for layer in config.layers),
        "num_kv_shared_layers": len(borrowers),
        "use_double_wide_mlp": any(layer.mlp_dim != config.layers[0].mlp_dim for layer in borrowers),
        "hidden_size_per_layer_input": config.per_layer_dim,
        "vocab_size_per_layer_input": config.vocab_size,
        "use_bidirectional_attention": None if config.image_attention == "causal" else "vision",
        "enable_moe_block": experts is not None,
        "num_experts": experts and experts.count,
        "top_k_experts": experts and experts.chosen,
        "moe_intermediate_size": experts and experts.mlp_dim,
    }


def _kind(layer: LayerSpec) -> str:
    return GLOBAL if layer.window is None else LOCAL


def _rope(layer: LayerSpec) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": layer.rope_theta}
    if layer.rope_scale != 1:
        rope |= {"rope_type": "linear", "factor": layer.rope_scale}
    if layer.rope_fraction != 1:
        rope |= {"rope_type": "proportional", "partial_rotary_factor": layer.rope_fraction}
    return rope


def _require_same(config: ModelConfig, read: ModelConfig) -> None:
    # How media are cut up is said by processor_config.json.
    frames = {name: getattr(config.clips, name) for name in ("max_frames", "max_soft_tokens")}
    read = replace(read, clips=replace(read.clips, **frames))
    if isinstance(config.vision, SiglipConfig) and isinstance(read.vision, SiglipConfig):
        crops = {name: getattr(config.vision, name) for name in ("max_crops", "crop_size", "crop_ratio")}
        read = replace(read, vision=replace(read.vision, **crops))
    differing = [field.name for field in fields(config) if getattr(config, field.name) != getattr(read, field.name)]
    if differing:
        given = ", ".join(f"{name}={getattr(config, name)!r:.60}" for name in differing)
        raise BadInput(f"no published model has this shape, and so there is no folder to export to: {given}")
