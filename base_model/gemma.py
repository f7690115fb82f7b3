"""A published config.json of Gemma 3 or Gemma 4 as a ModelConfig, and back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from base_model.config import ExpertsSpec, LayerSpec, ModelConfig
from base_model.gemma_towers import audio_config, vision_config
from base_model.media import Media
from training.errors import BadInput

LOCAL, GLOBAL = "sliding_attention", "full_attention"

# Published files leave out what is at its default.
_BOTH = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "final_logit_softcapping": None,
    "attn_logit_softcapping": None,
    "use_bidirectional_attention": None,
    "sliding_window_pattern": 6,
}
_GEMMA_3 = _BOTH | {
    "vocab_size": 262_208,
    "num_hidden_layers": 26,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rope_theta": 1e6,
    "rope_local_base_freq": 1e4,
    "rope_scaling": None,
}
_GEMMA_4 = _BOTH | {
    "vocab_size": 262_144,
    "num_hidden_layers": 30,
    "sliding_window": 512,
    "global_head_dim": 512,
    "num_global_key_value_heads": None,
    "attention_k_eq_v": False,
    "num_kv_shared_layers": 0,
    "use_double_wide_mlp": False,
    "hidden_size_per_layer_input": 256,
    "enable_moe_block": False,
    "rope_parameters": {
        LOCAL: {"rope_type": "default", "rope_theta": 1e4},
        GLOBAL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
    },
}
_UNIFIED = _GEMMA_4 | {
    "max_position_embeddings": 262_144,
    "sliding_window": 1024,
    "hidden_size_per_layer_input": 0,
    "use_bidirectional_attention": "vision",
}
_DEFAULTS = {"gemma3": _GEMMA_3, "gemma4": _GEMMA_4, "gemma4_unified": _UNIFIED}

# Where the soft tokens of a picture see each other; the smaller models read them like text.
_IMAGE_ATTENTION = {"gemma4": "bidirectional-local", "gemma4_unified": "bidirectional"}

# Control tokens of media, as config.json abbreviates them; ours are those of base_model/tokenizer.py.
CONTROLS = {
    "image": "<image_soft_token>",
    "boi": "<start_of_image>",
    "eoi": "<end_of_image>",
    "audio": "<audio_soft_token>",
    "boa": "<start_of_audio>",
    "eoa": "<end_of_audio>",
    "video": "<video_soft_token>",
}

# Settings with one value in every checkpoint that this decoder is: another value would be another model.
_FIXED = {
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "attention_bias": False,
    "attn_logit_softcapping": None,
}


def family(description: Mapping[str, Any]) -> str:
    """The key of `_DEFAULTS` that a published config.json belongs to.

    Raises:
        BadInput: for another model.
    """
    kind = str(description.get("model_type")).removesuffix("_text")
    if kind not in _DEFAULTS:
        raise BadInput(f"model_type {kind!r:.40} is not supported; those that are: {', '.join(_DEFAULTS)}")
    return kind


def model_config(description: Mapping[str, Any]) -> ModelConfig:
    """The model that a published config.json describes.

    Raises:
        BadInput: for a model that this decoder is not, naming the setting.
    """
    kind = family(description)
    try:
        vision, audio = vision_config(kind, description), audio_config(kind, description)
        return replace(text_config(description), vision=vision, audio=audio)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BadInput(f"config.json does not describe a {kind} model: {error!r}") from error


def soft_tokens(description: Mapping[str, Any]) -> Media:
    """The ids of the places that soft tokens take: of pictures and of frames of clips, and of sounds."""
    image = description.get("image_token_id", description.get("image_token_index"))
    ids = image, description.get("video_token_id"), description.get("audio_token_id")
    image, video, audio = ((number,) if type(number) is int else () for number in ids)
    return Media(image + video, audio)


def control_tokens(description: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that stand around media and in their places: no reply contains them."""
    names = [f"{kind}_token_{end}" for kind in CONTROLS for end in ("id", "index")]
    return tuple(sorted(description[name] for name in names if type(description.get(name)) is int))


def text_config(description: Mapping[str, Any]) -> ModelConfig:
    """The decoder that a published config.json describes, without its towers.

    Raises:
        BadInput: for a model that this decoder is not, naming the setting.
    """
    kind = family(description)
    text = {**_DEFAULTS[kind], **description.get("text_config", description)}
    for name, wanted in _FIXED.items():
        if text[name] != wanted:
            raise BadInput(f"{name} = {text[name]!r:.40} is not supported; it should be {wanted!r}")
    layers = tuple(_layer(number, text) for number in range(text["num_hidden_layers"]))
    shared = ModelConfig(
        vocab_size=text["vocab_size"],
        embed_dim=text["hidden_size"],
        layers=layers,
        final_logit_cap=text["final_logit_softcapping"],
        norm_epsilon=text["rms_norm_eps"],
        max_context=text["max_position_embeddings"],
    )
    bidirectional = text["use_bidirectional_attention"]
    if bidirectional not in (None, False, "vision"):
        raise BadInput(f"use_bidirectional_attention = {bidirectional!r:.40} is not supported: it is no language model")
    if kind == "gemma3":
        return replace(
            shared,
            query_scale=text["query_pre_attn_scalar"] ** -0.5,
            norm_offset=1.0,
            value_norm=False,
            image_attention="bidirectional" if "vision_config" in description else "causal",
        )
    return replace(
        shared,
        layer_scalar=True,
        per_layer_dim=text["hidden_size_per_layer_input"] or 0,
        image_attention=_IMAGE_ATTENTION[kind] if bidirectional else "causal",
    )


def _kinds(text: Mapping[str, Any]) -> list[str]:
    """Whether each layer is local or global."""
    if text.get("layer_types"):
        return text["layer_types"]
    count, every = text["num_hidden_layers"], text["sliding_window_pattern"]
    return [LOCAL if (number + 1) % every else GLOBAL for number in range(count)]


def _layer(number: int, text: Mapping[str, Any]) -> LayerSpec:
    kinds = _kinds(text)
    kind = kinds[number]
    sizes = {**text, **_own(number, kind, text)}
    rope = _rope(kind, text)
    own = text["num_hidden_layers"] - text.get("num_kv_shared_layers", 0)
    borrows = number >= own
    wide = 2 if borrows and text.get("use_double_wide_mlp") else 1
    return LayerSpec(
        window=text["sliding_window"] if kind == LOCAL else None,
        heads=text["num_attention_heads"],
        kv_heads=sizes["num_key_value_heads"],
        head_dim=sizes["head_dim"],
        rope_theta=float(rope["rope_theta"]),
        rope_fraction=float(rope.get("partial_rotary_factor", 1.0)),
        rope_scale=float(rope.get("factor", 1.0)),
        mlp_dim=wide * text["intermediate_size"],
        key_is_value=bool(text.get("attention_k_eq_v")) and kind == GLOBAL,
        kv_source=own - 1 - kinds[:own][::-1].index(kind) if borrows else None,
        experts=_experts(text),
    )


def _own(number: int, kind: str, text: Mapping[str, Any]) -> Mapping[str, Any]:
    """A layer's own head sizes: given for each layer by newer files, for all global layers by older ones."""
    if "per_layer_config" in text:
        return text["per_layer_config"].get(str(number), {})
    if kind == LOCAL or "global_head_dim" not in text:
        return {}
    heads = text["num_global_key_value_heads"] if text["attention_k_eq_v"] else None
    return {"head_dim": text["global_head_dim"]} | ({"num_key_value_heads": heads} if heads else {})


def _rope(kind: str, text: Mapping[str, Any]) -> Mapping[str, Any]:
    """Base, share and scale of a layer's angles, in the newer files' words."""
    if text.get("rope_parameters"):
        rope = text["rope_parameters"][kind]
    elif kind == LOCAL:
        rope = {"rope_theta": text["rope_local_base_freq"]}
    else:
        rope = {"rope_theta": text["rope_theta"], **(text["rope_scaling"] or {})}
    sort = rope.get("rope_type", rope.get("type", "default"))
    if sort not in ("default", "linear", "proportional"):
        raise BadInput(f"rope_type {sort!r:.40} is not supported; those that are: default, linear, proportional")
    # A default one may carry a factor or a share that nothing reads.
    reads = {"default": set(), "linear": {"factor"}, "proportional": {"factor", "partial_rotary_factor"}}[sort]
    return {name: value for name, value in rope.items() if name in reads | {"rope_theta"}}


def _experts(text: Mapping[str, Any]) -> ExpertsSpec | None:
    if not text.get("enable_moe_block"):
        return None
    return ExpertsSpec(count=text["num_experts"], chosen=text["top_k_experts"], mlp_dim=text["moe_intermediate_size"])
