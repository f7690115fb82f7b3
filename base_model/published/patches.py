"""Tensors of Gemma 4 unified's patch embedder (base_model/patches.py)."""

from base_model.published.biased import layer_norm, linear
from base_model.published.table import TRANSPOSED, Table, Tensor, below


def patches() -> Table:
    """Where each parameter stands."""
    embedder = {
        **layer_norm("pixel_norm", "patch_ln1"),
        **linear("embed", "patch_dense"),
        **layer_norm("patch_norm", "patch_ln2"),
        "places": Tensor("pos_embedding"),
        **layer_norm("place_norm", "pos_norm"),
    }
    projector = {"project": Tensor("embed_vision.embedding_projection.weight", TRANSPOSED)}
    return below("", "vision_embedder.", embedder) | projector
