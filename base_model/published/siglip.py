"""Tensors of Gemma 3's picture encoder (base_model/siglip.py)."""

from base_model.published.biased import layer_norm, linear
from base_model.published.table import CONVOLUTION, Table, Tensor, below, repeated
from base_model.siglip import SiglipConfig

LAYER: Table = {
    **layer_norm("attention_norm", "layer_norm1"),
    **linear("query", "self_attn.q_proj"),
    **linear("key", "self_attn.k_proj"),
    **linear("value", "self_attn.v_proj"),
    **linear("out", "self_attn.out_proj"),
    **layer_norm("mlp_norm", "layer_norm2"),
    **linear("up", "mlp.fc1"),
    **linear("down", "mlp.fc2"),
}


def siglip(config: SiglipConfig) -> Table:
    """Where each parameter stands."""
    table = {
        "patches": Tensor("embeddings.patch_embedding.weight", CONVOLUTION),
        "bias": Tensor("embeddings.patch_embedding.bias"),
        "places": Tensor("embeddings.position_embedding.weight"),
        **layer_norm("norm", "post_layernorm"),
    }
    table |= repeated("layers", "encoder.layers", config.layers, LAYER)
    projector = {
        "soft_norm.weight": Tensor("multi_modal_projector.mm_soft_emb_norm.weight"),
        "project": Tensor("multi_modal_projector.mm_input_projection_weight"),
    }
    return below("", "vision_tower.", table) | projector
