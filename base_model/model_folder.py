"""Models as folders: config.json, which describes the model and carries digests, and safetensors in bfloat16."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from base_model.config import read_config
from base_model.quantized import dequantised, quantised
from training.checkpoint import content_digest, write_json
from training.digest import json_digest
from training.errors import BadInput


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes config.json with a digest of what it says."""
    write_json(folder / "config.json", {**description, "digest": json_digest(description)})


def read_description(folder: Path, version: int, fields: set[str], *, digest: str | None = None) -> dict[str, Any]:
    """A folder's config.json, without the digest in it.

    Args:
        folder: where it lies.
        version: its format.
        fields: that it may have.
        digest: that the file must have, if given.

    Raises:
        BadInput: when it is missing, damaged or changed, of another format, or has other fields.
        Refused: when it is not the file of the digest.
    """
    description = read_config(folder / "config.json", digest=digest)
    if unknown := description.keys() - fields:
        raise BadInput(f"{folder}/config.json has fields that this version does not know: {', '.join(sorted(unknown))}")
    if description.get("format") != version:
        raise BadInput(f"{folder} has format {description.get('format')!r}, and this version reads format {version}")
    inside = description.pop("digest", None)  # models from before this field have none
    try:
        found = json_digest(description)
    except (ValueError, RecursionError) as error:  # NaN, which is no JSON and which Python's reader takes nonetheless
        raise BadInput(f"{folder}/config.json holds what no JSON is: {error}") from error
    if inside is not None and inside != found:
        raise BadInput(f"{folder}/config.json has been changed or damaged since it was written")
    for name in ("model", "statistics", "tokenizer"):
        if not isinstance(description.get(name, {}), dict):
            raise BadInput(f"{folder}/config.json: {name} is an object, not {description[name]!r:.40}")
    return description


def verified(params: Any, description: dict[str, Any], folder: Path, shape: Any) -> Any:
    """Parameters as they were stored, in float32 and on their devices, if they are those that the description names.

    Args:
        params: what was read.
        description: of the folder.
        folder: where it lies.
        shape: tree of jax.ShapeDtypeStruct; a parameter whose sharding it has is nowhere whole but, for a moment, on
            the host.

    Raises:
        BadInput: when they are others, or a number is not finite.
    """
    if content_digest(params) != description.get("content_digest"):
        raise BadInput(f"the parameters in {folder} are not those that were saved there: a file was changed or damaged")
    return jax.tree.map(lambda x, wanted: _on_devices(x, wanted.sharding, folder), params, shape)


def _on_devices(x: Any, sharding: Any, folder: Path) -> jax.Array:
    """One of the parameters, where it shall lie."""
    sharded = sharding is not None and isinstance(x, jax.Array)
    parts = [shard.data for shard in x.addressable_shards] if sharded else [np.asarray(x, np.float32)]
    if not all(np.isfinite(part).all() for part in parts):
        raise BadInput(f"the parameters in {folder} contain numbers that are not finite")
    if sharded:
        return x
    # By way of the host: orbax remembers the mesh that wrote them, and programs would be compiled anew for every mesh.
    return jnp.asarray(parts[0]) if sharding is None else jax.device_put(parts[0], sharding)


def write_arrays(path: Path, params: Any, *, bits: int = 16) -> Any:
    """Writes a tree of arrays to a safetensors file, and returns them as they will be read.

    Args:
        path: the file.
        params: the arrays.
        bits: 16 for bfloat16; 4 or 8 as in base_model/quantized.py.
    """
    named = {_name(place): np.asarray(leaf) for place, leaf in jax.tree_util.tree_leaves_with_path(params)}
    stored = {name: x.astype(jnp.bfloat16) for name, x in named.items()} if bits == 16 else quantised(named, bits)
    save_file(stored, path)
    read = dequantised(stored)
    return jax.tree_util.tree_map_with_path(lambda place, _: read[_name(place)], params)


def read_arrays(path: Path, shape: Any) -> Any:
    """Arrays of a safetensors file as a tree of the shapes of `shape`.

    Raises:
        BadInput: when the file is damaged, or an array is missing, of another shape, or one too many.
    """
    try:
        arrays = dequantised(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise BadInput(f"{path} is damaged: {error}") from error

    def take(place: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        array = arrays.pop(_name(place), None)
        if array is None or array.shape != leaf.shape:
            given = "missing" if array is None else f"of shape {list(array.shape)}"
            raise BadInput(f"{path}: {_name(place)} should have shape {list(leaf.shape)} and is {given}")
        return array

    params = jax.tree_util.tree_map_with_path(take, shape)
    if arrays:
        raise BadInput(f"{path} has parameters that this model lacks: {', '.join(sorted(arrays)[:5])}")
    return params


def _name(path: tuple) -> str:
    return ".".join(str(key.key) for key in path)
