"""Where a parameter stands in a published checkpoint: the name of its tensor and how its axes lie there."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Layout(NamedTuple):
    """A pair of inverse functions on arrays; they use methods alone, so NumPy arrays and traced shapes will do."""

    to_ours: Callable[[Any], Any]
    to_published: Callable[[Any], Any]


def _swap(x: Any) -> Any:
    return x.swapaxes(-1, -2)


SAME = Layout(lambda x: x, lambda x: x)
# Linear layers: published [out, in], ours [in, out]; with an axis of experts in front, too.
TRANSPOSED = Layout(_swap, _swap)
# Convolutions in two dimensions: published [out, in, height, width], ours [height, width, in, out].
CONVOLUTION = Layout(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# Depthwise convolutions over time: published [channels, 1, time], ours [time, channels].
DEPTHWISE = Layout(lambda x: x[:, 0].T, lambda x: x.T[:, None])


class Tensor(NamedTuple):
    """One tensor of a checkpoint.

    Attributes:
        name: without what published folders put before it differently (see `canonical`).
        layout: how its axes lie there.
    """

    name: str
    layout: Layout = SAME


# Our dotted parameter path -> the published tensor. A module's table is a function of its config.
Table = dict[str, Tensor]


def below(ours: str, published: str, table: Table) -> Table:
    """The table with a prefix before every path and every name."""
    return {f"{ours}{path}": Tensor(f"{published}{name}", layout) for path, (name, layout) in table.items()}


def repeated(ours: str, published: str, count: int, layer: Table) -> Table:
    """The tables of `count` layers that are alike, numbered from 0 behind these paths."""
    table: Table = {}
    for number in range(count):
        table |= below(f"{ours}.{number}.", f"{published}.{number}.", layer)
    return table


def canonical(name: str) -> str:
    """The name without the wrappers that differ between versions of the same checkpoint.

    The text model's own tensors stand bare ("layers.0...", "embed_tokens.weight"), the others below their tower
    ("vision_tower.", "audio_tower.", "embed_vision.", "multi_modal_projector.").
    """
    for wrapper in ("model.", "language_model.", "model."):
        name = name.removeprefix(wrapper)
    return name.replace("vision_tower.vision_model.", "vision_tower.", 1)
