"""Tensors of Gemma 4's audio encoder (base_model/conformer.py)."""

from base_model.conformer import ConformerConfig
from base_model.published.clipped import clipped_linear
from base_model.published.table import CONVOLUTION, DEPTHWISE, TRANSPOSED, Table, Tensor, below, repeated

LINEAR = {
    "before.up": "feed_forward1.ffw_layer_1",
    "before.down": "feed_forward1.ffw_layer_2",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.post",
    "convolution.start": "lconv1d.linear_start",
    "convolution.end": "lconv1d.linear_end",
    "after.up": "feed_forward2.ffw_layer_1",
    "after.down": "feed_forward2.ffw_layer_2",
}

LAYER = {
    "before.norm.weight": Tensor("feed_forward1.pre_layer_norm.weight"),
    "before.post_norm.weight": Tensor("feed_forward1.post_layer_norm.weight"),
    "attention.norm.weight": Tensor("norm_pre_attn.weight"),
    "attention.post_norm.weight": Tensor("norm_post_attn.weight"),
    "attention.relative": Tensor("self_attn.relative_k_proj.weight", TRANSPOSED),
    "attention.query_scale": Tensor("self_attn.per_dim_scale"),
    "convolution.norm.weight": Tensor("lconv1d.pre_layer_norm.weight"),
    "convolution.kernel": Tensor("lconv1d.depthwise_conv1d.weight", DEPTHWISE),
    "convolution.inner_norm.weight": Tensor("lconv1d.conv_norm.weight"),
    "after.norm.weight": Tensor("feed_forward2.pre_layer_norm.weight"),
    "after.post_norm.weight": Tensor("feed_forward2.post_layer_norm.weight"),
    "norm.weight": Tensor("norm_out.weight"),
}


def conformer(config: ConformerConfig) -> Table:
    """Where each parameter stands."""
    table = {
        "subsampling.project": Tensor("subsample_conv_projection.input_proj_linear.weight", TRANSPOSED),
        "out": Tensor("output_proj.weight", TRANSPOSED),
        "bias": Tensor("output_proj.bias"),
    }
    for index in range(len(config.channels)):
        stage = f"subsample_conv_projection.layer{index}"
        table[f"subsampling.kernels.{index}"] = Tensor(f"{stage}.conv.weight", CONVOLUTION)
        table[f"subsampling.norms.{index}"] = Tensor(f"{stage}.norm.weight")
    layer = dict(LAYER)
    for ours, published in LINEAR.items():
        layer |= clipped_linear(ours, published, clipped=config.clipped)
    table |= repeated("layers", "layers", config.layers, layer)
    projector = {"project": Tensor("embed_audio.embedding_projection.weight", TRANSPOSED)}
    return below("", "audio_tower.", table) | projector
