"""The tensors of layers with biases (base_model/biased.py)."""

from base_model.published.table import TRANSPOSED, Table, Tensor


def linear(ours: str, published: str) -> Table:
    """Kernel and bias of the layer that stands at the path `ours` and is published under the name `published`."""
    return {f"{ours}.kernel": Tensor(f"{published}.weight", TRANSPOSED), f"{ours}.bias": Tensor(f"{published}.bias")}


def layer_norm(ours: str, published: str) -> Table:
    """Weight and bias of a layer norm."""
    return {f"{ours}.{name}": Tensor(f"{published}.{name}") for name in ("weight", "bias")}
