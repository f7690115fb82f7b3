"""The tensors of a clipped linear layer (base_model/clipped.py)."""

from base_model.published.table import TRANSPOSED, Table, Tensor

BOUNDS = ("input_min", "input_max", "output_min", "output_max")


def clipped_linear(ours: str, published: str, *, clipped: bool) -> Table:
    """Kernel and bounds of the layer that stands at the path `ours` and is published under the name `published`."""
    bounds = {f"{ours}.{bound}": Tensor(f"{published}.{bound}") for bound in BOUNDS if clipped}
    return {f"{ours}.kernel": Tensor(f"{published}.linear.weight", TRANSPOSED), **bounds}
