import shutil
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_world import one_layer

from base_model import checkpoint
from base_model.quantized import dequantised, quantised
from training.digest import folder_digest
from training.errors import BadInput

ARRAYS = {
    "embedding": np.random.default_rng(0).normal(size=(6, 128)).astype(np.float32),
    "blocks.0.mlp.down": np.random.default_rng(1).normal(size=(128, 6)).astype(np.float32),
    "blocks.0.mlp.up": np.random.default_rng(2).normal(size=(3, 10, 4)).astype(np.float32),
    "final_norm.weight": np.array([0.1, 1.7], np.float32),
    "vision.patches": np.array([[0.1, 1.7]], np.float32),
}


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """The tiny model's first layer in 4 bits."""
    folder = tmp_path_factory.mktemp("quantised") / "int4"
    checkpoint.save(one_layer(tiny_model), folder, weights="int4")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of it."""
    return shutil.copytree(saved, tmp_path / "int4")


@pytest.mark.parametrize(("bits", "most"), [(4, 7.5), (8, 127.5)])
def test_every_number_is_off_by_half_a_step_of_its_group_at_most(bits, most):
    stored = quantised(ARRAYS, bits)
    found = dequantised(stored)
    assert found.keys() == ARRAYS.keys()
    for name, axis, group in (("embedding", 1, 64), ("blocks.0.mlp.down", 0, 64), ("blocks.0.mlp.up", 1, 10)):
        array = np.moveaxis(ARRAYS[name], axis, -1)
        groups = array.reshape(*array.shape[:-1], -1, group)
        steps = np.repeat(np.abs(groups).max(-1) / most, group, -1)
        off = np.abs(np.moveaxis(found[name], axis, -1) - array)
        assert (off <= 0.501 * steps).all() and off.max() > 0
        assert stored[f"{name}.values"].nbytes == array.size * bits // 8
    np.testing.assert_array_equal(found["final_norm.weight"], ARRAYS["final_norm.weight"])
    np.testing.assert_array_equal(found["vision.patches"].astype(np.float32), [[0.10009765625, 1.703125]])


def test_a_quantised_checkpoint_is_read_like_any_other_without_the_library(folder, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    read, given = checkpoint.load(folder), one_layer(tiny_model)
    assert jax.tree.map(np.shape, read.params) == jax.tree.map(np.shape, given.params)
    embedding = np.asarray(given.params["embedding"])
    off = np.abs(np.asarray(read.params["embedding"]) - embedding).max()
    assert 0 < off < np.abs(embedding).max() / 14


def without_scales(stored):
    del stored["embedding.scales"]


def with_few_scales(stored):
    stored["embedding.scales"] = stored["embedding.scales"][:3]


def with_a_changed_byte(stored):
    stored["embedding.values"] = stored["embedding.values"] ^ np.eye(*stored["embedding.values"].shape, dtype=np.uint8)


def without_values(stored):
    del stored["blocks.0.mlp.up.values"]


@pytest.mark.parametrize(("damage", "message"), [
    (without_scales, "embedding has no scales that fit its values"),
    (with_few_scales, "embedding has no scales that fit its values"),
    (with_a_changed_byte, "not those that were saved there"),
    (without_values, "blocks.0.mlp.up should have shape .* and is missing"),
])  # fmt: skip
def test_a_damaged_file_is_bad_input(folder, damage, message):
    path, before = folder / "model.safetensors", folder_digest(folder)
    stored = load_file(path)
    damage(stored)
    save_file(stored, path)
    assert folder_digest(folder) != before
    with pytest.raises(BadInput, match=message):
        checkpoint.load(folder)


def test_a_file_that_ends_early_is_bad_input(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match="is damaged"):
        checkpoint.load(folder)
