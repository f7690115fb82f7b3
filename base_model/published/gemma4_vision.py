"""Tensors of Gemma 4's picture encoder (base_model/gemma4_vision.py)."""

from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.published.clipped import clipped_linear
from base_model.published.table import TRANSPOSED, Table, Tensor, below, repeated

LINEAR = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}

LAYER = {
    "attention_norm.weight": Tensor("input_layernorm.weight"),
    "attention_post_norm.weight": Tensor("post_attention_layernorm.weight"),
    "attention.query_norm.weight": Tensor("self_attn.q_norm.weight"),
    "attention.key_norm.weight": Tensor("self_attn.k_norm.weight"),
    "mlp_norm.weight": Tensor("pre_feedforward_layernorm.weight"),
    "mlp_post_norm.weight": Tensor("post_feedforward_layernorm.weight"),
}


def gemma4_vision(config: Gemma4VisionConfig) -> Table:
    """Where each parameter stands."""
    table = {
        "patches": Tensor("patch_embedder.input_proj.weight", TRANSPOSED),
        "places": Tensor("patch_embedder.position_embedding_table"),
    }
    if config.standardised:
        table |= {"shift": Tensor("std_bias"), "scale": Tensor("std_scale")}
    layer = dict(LAYER)
    for ours, published in LINEAR.items():
        layer |= clipped_linear(ours, published, clipped=config.clipped)
    table |= repeated("layers", "encoder.layers", config.layers, layer)
    projector = {"project": Tensor("embed_vision.embedding_projection.weight", TRANSPOSED)}
    return below("", "vision_tower.", table) | projector
