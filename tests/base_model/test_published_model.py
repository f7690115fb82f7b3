import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from base_model.config import read_config
from base_model.gemma import model_config, soft_tokens
from base_model.published.exporting import _prefixes
from base_model.published.model import abstract_model, read_params, written_params
from base_model.published.safetensors_files import write_tensors
from training.errors import BadInput
from training.sharding import make_mesh

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
NAMES = ["gemma3", "gemma3_text_mqa", "gemma4_dense", "gemma4_e", "gemma4_moe_text", "gemma4_unified"]


def described(name):
    description = read_config(FIXTURES / name / "config.json")
    return description, model_config(description), soft_tokens(description)


@pytest.mark.parametrize("name", NAMES)
def test_a_round_trip_gives_the_same_bits_under_the_same_names(tmp_path, name):
    description, config, places = described(name)
    mesh = make_mesh() if name == "gemma4_e" else None
    params = read_params(FIXTURES / name, config, abstract_model(config, places, mesh)[1])
    tensors = written_params(config, params, prefixes=_prefixes(description))
    write_tensors(tmp_path, tensors, dtype=np.dtype(np.float32), shard_bytes=10**9)
    given, found = (load_file(folder / "model.safetensors") for folder in (FIXTURES / name, tmp_path))
    assert found.keys() == given.keys()
    for tensor, array in given.items():
        np.testing.assert_array_equal(found[tensor], array, err_msg=tensor)


def test_arrays_have_the_shardings_that_were_asked_for():
    _, config, places = described("gemma4_moe_text")
    _, like = abstract_model(config, places, make_mesh())
    params = read_params(FIXTURES / "gemma4_moe_text", config, like)
    for array, leaf in zip(jax.tree.leaves(params), jax.tree.leaves(like), strict=True):
        assert array.sharding == leaf.sharding


@pytest.fixture
def changed(tmp_path):
    """Reads a fixture whose tensors were changed."""
    description, config, places = described("gemma4_moe_text")
    (tmp_path / "config.json").write_text(json.dumps(description))
    tensors = load_file(FIXTURES / "gemma4_moe_text" / "model.safetensors")

    def read(change):
        change(tensors)
        save_file(tensors, tmp_path / "model.safetensors")
        return read_params(tmp_path, config, abstract_model(config, places)[1])

    return read


def test_tensors_that_do_not_fit_are_named_in_one_error(changed):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.9.mlp.up_proj.weight"] = np.zeros(2, np.float32)
        tensors["model.norm.weight"] = np.zeros(3, np.float32)

    with pytest.raises(BadInput) as error:
        changed(change)
    said = str(error.value)
    assert "missing: layers.1.mlp.up_proj.weight" in said
    assert "unknown: layers.9.mlp.up_proj.weight" in said
    assert "of another shape: norm.weight [3] instead of [64]" in said


def test_a_tensor_that_stands_there_under_two_names_is_refused(changed):
    def change(tensors):
        tensors["model.language_model.norm.weight"] = 2 * tensors["model.norm.weight"]

    with pytest.raises(BadInput, match="several names for one and the same: model.language_model.norm.weight, model.n"):
        changed(change)


def test_a_tied_head_may_stand_in_the_file(changed):
    params = changed(lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}))
    assert params["embedding"].shape == (320, 64)


def test_an_older_layout_of_names_is_the_same_model(changed):
    def change(tensors):
        for name in list(tensors):
            tensors[name.replace("model.", "model.language_model.", 1)] = tensors.pop(name)

    assert changed(change)["embedding"].shape == (320, 64)
