"""The text decoder's tensors in published checkpoints of Gemma 3 and Gemma 4."""

from base_model.config import LayerSpec, ModelConfig
from base_model.published.table import SAME, TRANSPOSED, Table, Tensor, below


def decoder_tensors(config: ModelConfig) -> Table:
    """Tensors of everything but the towers, of a model with four norms a layer."""
    table = {"embedding": Tensor("embed_tokens.weight"), "final_norm.weight": Tensor("norm.weight")}
    if config.per_layer_dim:
        table |= {
            "per_layer.table": Tensor("embed_tokens_per_layer.weight"),
            "per_layer.project": Tensor("per_layer_model_projection.weight", TRANSPOSED),
            "per_layer.norm.weight": Tensor("per_layer_projection_norm.weight"),
        }
    for number, spec in enumerate(config.layers):
        table |= below(f"blocks.{number}.", f"layers.{number}.", _layer(spec, config))
    return table


def unread_tensors(config: ModelConfig) -> set[str]:
    """Names that a checkpoint may have and the model has no use for: keys of layers that borrow theirs, a tied head."""
    parts = ("k_proj", "v_proj", "k_norm", "v_norm")
    borrowers = [number for number, spec in enumerate(config.layers) if spec.kv_source is not None]
    return {"lm_head.weight", *(f"layers.{n}.self_attn.{part}.weight" for n in borrowers for part in parts)}


def _layer(spec: LayerSpec, config: ModelConfig) -> Table:
    linear = {"attention.query": "self_attn.q_proj", "attention.out": "self_attn.o_proj"}
    linear |= {"mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}
    norms = {
        "attention_norm": "input_layernorm",
        "attention_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
        "attention.query_norm": "self_attn.q_norm",
    }
    table: Table = {}
    if spec.kv_source is None:
        linear["attention.key"] = "self_attn.k_proj"
        norms["attention.key_norm"] = "self_attn.k_norm"
        if not spec.key_is_value:
            linear["attention.value"] = "self_attn.v_proj"
    if spec.experts is not None:
        linear["experts.router.project"] = "router.proj"
        norms |= {
            "experts.norm": "pre_feedforward_layernorm_2",
            "experts.post_norm": "post_feedforward_layernorm_2",
            "experts.mlp_post_norm": "post_feedforward_layernorm_1",
        }
        table |= {
            "experts.router.scale": Tensor("router.scale"),
            "experts.router.expert_scale": Tensor("router.per_expert_scale"),
            "experts.gate_up": Tensor("experts.gate_up_proj", TRANSPOSED),
            "experts.down": Tensor("experts.down_proj", TRANSPOSED),
        }
    if config.per_layer_dim:
        linear |= {"per_layer.gate": "per_layer_input_gate", "per_layer.out": "per_layer_projection"}
        norms["per_layer.norm"] = "post_per_layer_input_norm"
    if config.layer_scalar:
        table["scalar"] = Tensor("layer_scalar")
    table |= {ours: Tensor(f"{name}.weight", TRANSPOSED) for ours, name in linear.items()}
    table |= {f"{ours}.weight": Tensor(f"{name}.weight", SAME) for ours, name in norms.items()}
    return table
