"""Safetensors files, one tensor at a time: what is read or written never stands in memory whole."""

import json
import struct
from collections.abc import Callable, Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from training.errors import BadInput

DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(jnp.bfloat16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"


class Stored(NamedTuple):
    """A tensor in a file."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def open(self) -> np.ndarray:
        """The tensor as a view of the file, read where it is touched; the memory is free again with the view."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        flat = np.memmap(self.path, self.dtype, "r", self.offset, (prod(self.shape),))
        return flat.reshape(self.shape)


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a checkpoint folder, in one file or in the shards that its index names.

    Raises:
        BadInput: when a file is missing or damaged, or two of them have a tensor of one name.
    """
    if not (folder / INDEX).exists():
        return _read_header(folder / "model.safetensors")
    try:
        shards = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(shards.values()))
        if not all(type(name) is str and Path(name).name == name for name in files):
            raise TypeError("a shard is not the name of a file beside it")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{folder / INDEX} is no index of safetensors files: {error}") from error
    found: dict[str, Stored] = {}
    for file in files:
        shard = _read_header(folder / file)
        if twice := sorted(found.keys() & shard.keys()):
            raise BadInput(f"{folder / file} has {twice[0]}, and {found[twice[0]].path.name} has it too: remove one")
        found |= shard
    return found


def _read_header(path: Path) -> dict[str, Stored]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(100_000_000, path.stat().st_size):
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        return {name: _stored(path, entry, 8 + length) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise BadInput(f"{path} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise BadInput(f"{path} is no safetensors file, or damaged: {error}") from error


def _stored(path: Path, entry: Mapping[str, Any], start: int) -> Stored:
    if entry["dtype"] not in DTYPES:
        raise ValueError(f"dtype {entry['dtype']} is not one of {', '.join(DTYPES)}")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if not all(type(size) is int and size >= 0 for size in (first, last, *shape)):
        raise ValueError("a shape or an offset is not a whole number")
    if last - first != prod(shape) * dtype.itemsize or start + last > path.stat().st_size:
        raise ValueError("its data end before they should")
    return Stored(path, start + first, shape, dtype)


class Written(NamedTuple):
    """A tensor to be written: its name, its shape, and how to get it when its turn comes."""

    name: str
    shape: tuple[int, ...]
    fetch: Callable[[], Any]


def write_tensors(folder: Path, tensors: Iterable[Written], *, dtype: np.dtype, shard_bytes: int) -> None:
    """Writes model.safetensors, or shards with an index when there is more than fits into one."""
    shards: list[list[Written]] = [[]]
    room = shard_bytes
    for tensor in tensors:
        size = prod(tensor.shape) * dtype.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= size
    files = ["model.safetensors"]
    if len(shards) > 1:
        files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        total = sum(prod(tensor.shape) * dtype.itemsize for shard in shards for tensor in shard)
        places = {tensor.name: file for file, shard in zip(files, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file, shard in zip(files, shards, strict=True):
        _write_file(folder / file, shard, dtype)


def _write_file(path: Path, tensors: list[Written], dtype: np.dtype) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + prod(tensor.shape) * dtype.itemsize
        header[tensor.name] = {"dtype": _NAMES[dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data start at a multiple of eight
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            array = np.ascontiguousarray(np.asarray(tensor.fetch()).astype(dtype, copy=False))
            file.write(array.reshape(-1).view(np.uint8).data)
