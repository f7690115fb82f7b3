"""The one table from logical axes to mesh axes, and what follows from it."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from training.errors import BadInput

MESH_AXES = ("data", "fsdp", "tensor")

# Parameters are split over fsdp along their embedding axis and over tensor along their hidden one. A single key-value
# head cannot be split, so it is replicated over tensor.
RULES: dict[str | None, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": None,
    "mlp": "tensor",
    "vocab": "tensor",
    None: None,
}


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh over all devices; one size may be -1 and takes what the others leave.

    Raises:
        BadInput: when the sizes do not multiply to the number of devices (jax.Device, by default all).
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = [data, fsdp, tensor]
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = len(devices) // max(1, -math.prod(sizes))
    if min(sizes) < 1 or math.prod(sizes) != len(devices):
        raise BadInput(
            f"a mesh of {data} x {fsdp} x {tensor} ({' x '.join(MESH_AXES)}) cannot be made of {len(devices)} devices; "
            "sizes multiply to that number, and one of them may be -1"
        )
    return Mesh(np.array(devices).reshape(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def named_sharding(mesh: Mesh, axes: Sequence[str | None]) -> NamedSharding:
    """The sharding of an array whose axes have these logical names.

    Raises:
        BadInput: for a name that the table does not have.
    """
    unknown = [axis for axis in axes if axis not in RULES]
    if unknown:
        known = ", ".join(filter(None, RULES))
        raise BadInput(f"no sharding rule for the logical axis {unknown[0]!r}; known are {known}")
    return NamedSharding(mesh, PartitionSpec(*(RULES[axis] for axis in axes)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def parameter_shardings(mesh: Mesh, logical_axes: Any) -> Any:
    """Shardings of a tree of parameters from the tree of their logical axes (tuples of names)."""
    return jax.tree.map(lambda axes: named_sharding(mesh, axes), logical_axes, is_leaf=lambda x: isinstance(x, tuple))


def row_shards(mesh: Mesh | None) -> int:
    """Into how many parts the rows of a batch are split."""
    return 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]


def shard_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts host arrays on the mesh, split along their first axis.

    Raises:
        BadInput: when the rows do not divide evenly over the devices that share them.
    """
    parts = row_shards(mesh)
    rows = jax.tree.leaves(batch)[0].shape[0]
    if rows % parts:
        raise BadInput(f"a batch of {rows} rows cannot be split over {parts} devices; make it a multiple of {parts}")
    return jax.device_put(batch, named_sharding(mesh, ("batch",)))
