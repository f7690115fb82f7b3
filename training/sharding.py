"""The one table from logical axes to mesh axes, and what follows from it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

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


def named_sharding(mesh: Mesh, axes: Sequence[str | None]) -> Sharding:
    """The sharding of an array whose axes have these logical names; on a mesh of one device that of any array there.

    A model that was trained there and one that was read from its folder then lie in the same way, or every program that
    takes both would be compiled twice.

    Raises:
        BadInput: for a name that the table does not have.
    """
    unknown = [axis for axis in axes if axis not in RULES]
    if unknown:
        known = ", ".join(filter(None, RULES))
        raise BadInput(f"no sharding rule for the logical axis {unknown[0]!r}; known are {known}")
    return _sharding(mesh, PartitionSpec(*(RULES[axis] for axis in axes)))


def replicated(mesh: Mesh) -> Sharding:
    """The sharding of what every device holds whole."""
    return _sharding(mesh, PartitionSpec())


def _sharding(mesh: Mesh, spec: PartitionSpec) -> Sharding:
    return SingleDeviceSharding(mesh.devices.item()) if mesh.size == 1 else NamedSharding(mesh, spec)


def parameter_shardings(mesh: Mesh, logical_axes: Any, params: Any) -> Any:
    """Shardings of a tree of parameters.

    Args:
        mesh: where they are to lie.
        logical_axes: of each parameter the names of its axes, a tuple.
        params: arrays or their shapes.

    Raises:
        BadInput: naming a parameter that cannot be split so, and sizes of the mesh with which all can.
    """
    _require_divides(mesh, logical_axes, params)
    return jax.tree.map(lambda axes: named_sharding(mesh, axes), logical_axes, is_leaf=_is_axes)


def placed(mesh: Mesh, logical_axes: Any, params: Any) -> Any:
    """The shapes of parameters with the shardings of the mesh; raises as parameter_shardings does."""
    shardings = parameter_shardings(mesh, logical_axes, params)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, shardings)


def _is_axes(x: Any) -> bool:
    return isinstance(x, tuple)


class _Split(NamedTuple):
    """An axis of a parameter that the mesh splits: its width, and over which axis of the mesh."""

    parameter: str
    width: int
    axis: str


def _require_divides(mesh: Mesh, logical_axes: Any, params: Any) -> None:
    named = jax.tree_util.tree_leaves_with_path(logical_axes, is_leaf=_is_axes)
    splits = [
        _Split(jax.tree_util.keystr(path, simple=True, separator="."), width, axis)
        for (path, axes), leaf in zip(named, jax.tree.leaves(params), strict=True)
        for name, width in zip(axes, leaf.shape, strict=True)
        if isinstance(axis := RULES.get(name), str)
    ]
    wrong = next((split for split in splits if split.width % mesh.shape[split.axis]), None)
    if wrong is None:
        return
    widths = {axis: math.gcd(*(split.width for split in splits if split.axis == axis)) for axis in MESH_AXES}
    most = lambda sizes, axis: max(n for n in sizes if widths[axis] % n == 0)  # noqa: E731
    tensor = most([n for n in range(1, mesh.shape["tensor"] + 1) if mesh.size % n == 0], "tensor")
    left = mesh.size // tensor
    fsdp = most([n for n in range(1, left + 1) if left % n == 0], "fsdp")
    raise BadInput(
        f"the parameter {wrong.parameter} is {wrong.width} wide where the mesh splits it over the "
        f"{mesh.shape[wrong.axis]} devices of its axis {wrong.axis}, which does not divide; "
        f"set data_parallel={left // fsdp} tensor_parallel={tensor}, or use another number of devices"
    )


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
