import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from base_model.published.safetensors_files import INDEX, Written, stored_tensors, write_tensors
from training.errors import BadInput

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.array([1.5, -2.25], np.float32),
    "scalar": np.array(7, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


def written(arrays):
    return [Written(name, array.shape, lambda array=array: array) for name, array in arrays.items()]


def write(folder, *, dtype=np.float32, shard_bytes=10**9):
    write_tensors(folder, written(ARRAYS), dtype=np.dtype(dtype), shard_bytes=shard_bytes)


def test_what_the_library_writes_is_read(tmp_path):
    save_file({name: array.astype(jnp.bfloat16) for name, array in ARRAYS.items()}, tmp_path / "model.safetensors")
    for name, stored in stored_tensors(tmp_path).items():
        assert stored.dtype == jnp.bfloat16
        np.testing.assert_array_equal(stored.open(), ARRAYS[name].astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_what_is_written_the_library_reads(tmp_path, dtype):
    write(tmp_path, dtype=dtype)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == ARRAYS.keys() and not (tmp_path / INDEX).exists()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array.astype(dtype))


def test_what_does_not_fit_into_one_file_is_written_to_several(tmp_path):
    write(tmp_path, shard_bytes=30)
    index = json.loads((tmp_path / INDEX).read_text())
    assert set(index["weight_map"].values()) == {f"model-0000{n}-of-00002.safetensors" for n in (1, 2)}
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in ARRAYS.values())
    stored = stored_tensors(tmp_path)
    assert stored.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(stored[name].open(), array)


def header(entry, data=b"\0" * 8):
    text = json.dumps({"a": entry}).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 40,
        struct.pack("<Q", 4) + b"[1] ",
        struct.pack("<Q", 6) + b"[[[[[[",
        header({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, b"\0" * 7),
        header({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}),
        header({"dtype": "F32", "shape": [-2], "data_offsets": [8, 0]}),
        header({"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}),
        header({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}),
        header({"shape": [2], "data_offsets": [0, 8]}),
        header("F32"),
    ],
)
def test_a_damaged_file_is_bad_input(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(BadInput, match="model.safetensors"):
        stored_tensors(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": {"a": "../other"}}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_bad_input(tmp_path, index):
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(BadInput, match="index"):
        stored_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write(tmp_path, shard_bytes=30)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="model-00002-of-00002.safetensors"):
        stored_tensors(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    write(tmp_path, shard_bytes=30)
    first, second = (tmp_path / f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(BadInput, match=f"{second.name} has .*, and {first.name} has it too"):
        stored_tensors(tmp_path)
