"""A model's parameters out of a published folder, and into one."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from base_model.checkpoint import logical_axes, split
from base_model.config import ModelConfig
from base_model.conformer import ConformerConfig
from base_model.decoder import Decoder
from base_model.frames import FramesConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.media import Media
from base_model.patches import PatchesConfig
from base_model.published.conformer import conformer
from base_model.published.decoder import decoder_tensors, unread_tensors
from base_model.published.frames import frames
from base_model.published.gemma4_vision import gemma4_vision
from base_model.published.patches import patches
from base_model.published.safetensors_files import Stored, Written, stored_tensors
from base_model.published.siglip import siglip
from base_model.published.table import Table, below, canonical
from base_model.siglip import SiglipConfig
from training.errors import BadInput
from training.sharding import placed


def model_tensors(config: ModelConfig) -> Table:
    """The table of a whole model.

    Raises:
        BadInput: for an encoder that no published model has.
    """
    table = decoder_tensors(config)
    for name, tower in (("vision", config.vision), ("audio", config.audio)):
        if tower is not None:
            table |= below(f"{name}.", "", _tower_tensors(tower))
    return table


def _tower_tensors(tower: Any) -> Table:
    match tower:
        case SiglipConfig():
            return siglip(tower)
        case Gemma4VisionConfig():
            return gemma4_vision(tower)
        case PatchesConfig():
            return patches()
        case ConformerConfig():
            return conformer(tower)
        case FramesConfig():
            return frames()
    raise BadInput(f"no published model has the encoder {type(tower).__name__}")


def abstract_model(
    config: ModelConfig, soft_tokens: Media, mesh: Mesh | None = None, *, remat: bool = False
) -> tuple[nnx.GraphDef, Any]:
    """The static structure of a decoder, and the shapes of its parameters, on one device or sharded over a mesh."""
    options = {"soft_tokens": soft_tokens, "mesh": mesh, "remat": remat}
    module = nnx.eval_shape(lambda: Decoder(config, **options, rngs=nnx.Rngs(0)))
    structure, shapes = split(module)
    if mesh is not None:
        return structure, placed(mesh, logical_axes(module), shapes)
    here = SingleDeviceSharding(jax.local_devices()[0])
    return structure, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)


def read_params(folder: Path, config: ModelConfig, like: Any) -> Any:
    """Reads a model's parameters in float32, each device's part of each straight from the file.

    Args:
        folder: with safetensors files.
        config: of the model.
        like: tree of jax.ShapeDtypeStruct, with the shardings that the arrays shall have.

    Raises:
        BadInput: naming the tensors that are missing, unknown or of another shape.
    """
    table = model_tensors(config)
    given = stored_tensors(folder)
    stored = {canonical(name): tensor for name, tensor in given.items()}
    if len(stored) < len(given):
        counts = Counter(map(canonical, given))
        twice = _first(sorted(name for name in given if counts[canonical(name)] > 1))
        raise BadInput(f"{folder} has tensors under several names for one and the same: {twice}; keep one of each")
    _require_fit(folder, table, stored, like, unread_tensors(config))

    def read(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name, layout = table[dotted(path)]
        view = layout.to_ours(stored[name].open())
        # A copy even where nothing is to be cast or turned: an array must not change when the file does.
        part = lambda index: np.array(view[index], np.float32, order="C")  # noqa: E731
        # One after another, so that no more than one stands in host memory beside what the devices hold.
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, part).block_until_ready()

    return jax.tree_util.tree_map_with_path(read, like)


def written_params(config: ModelConfig, params: Any, *, prefixes: tuple[str, str]) -> Iterator[Written]:
    """A model's parameters as the tensors of a published folder.

    Args:
        config: of the model.
        params: its parameters.
        prefixes: what stands before the names of the text decoder's tensors, and before those of the towers'.
    """
    text, towers = prefixes
    table, own = model_tensors(config), {name for name, _ in decoder_tensors(config).values()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name, layout = table[dotted(path)]
        shape = jax.eval_shape(layout.to_published, leaf).shape
        fetch = lambda leaf=leaf, layout=layout: layout.to_published(np.asarray(leaf))  # noqa: E731
        yield Written((text if name in own else towers) + name, shape, fetch)


def dotted(path: tuple) -> str:
    """The path of a leaf in a tree of parameters."""
    return ".".join(str(key.key) for key in path)


def _require_fit(folder: Path, table: Table, stored: dict[str, Stored], like: Any, unread: set[str]) -> None:
    wanted = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        name, layout = table[dotted(path)]
        wanted[name] = jax.eval_shape(layout.to_published, leaf).shape
    misshapen = [
        f"{name} {list(stored[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in stored and stored[name].shape != shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - stored.keys()),
        "unknown": sorted(stored.keys() - wanted.keys() - unread),
        "of another shape": misshapen,
    }
    listed = [f"{what}: {_first(names)}" for what, names in problems.items() if names]
    if listed:
        raise BadInput(f"the tensors in {folder} are not those of its config.json; {'; '.join(listed)}")


def _first(names: list[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
