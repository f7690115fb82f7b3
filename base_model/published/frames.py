"""Tensors of Gemma 4 unified's audio embedder (base_model/frames.py)."""

from base_model.published.table import TRANSPOSED, Table, Tensor


def frames() -> Table:
    """Where each parameter stands."""
    return {"project": Tensor("embed_audio.embedding_projection.weight", TRANSPOSED)}
