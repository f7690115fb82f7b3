import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gemma_vocabulary import GEMMA_4, vocabulary
from safetensors.numpy import load_file
from tiny_world import one_layer, scalar

from base_model import checkpoint
from pipeline import cli

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"


@pytest.fixture
def published(tmp_path):
    """A published folder with a tokenizer."""
    folder = Path(shutil.copytree(FIXTURES / "gemma4_moe_text", tmp_path / "published"))
    (folder / "tokenizer.json").write_bytes(vocabulary(GEMMA_4))
    return folder


def run(*words):
    return cli.main(["base", *map(str, words)])


def test_a_model_that_is_imported_and_exported_has_the_same_bits(in_process, published, tmp_path, capsys):
    assert run("import", published, f"out={tmp_path / 'ours'}") == 0
    assert run("info", f"checkpoint={tmp_path / 'ours'}") == 0
    assert run("export", tmp_path / "ours", f"out={tmp_path / 'theirs'}", "dtype=float32", "shard_bytes=300000") == 0
    given = load_file(published / "model.safetensors")
    shards = sorted((tmp_path / "theirs").glob("model-*.safetensors"))
    assert len(shards) > 1
    found = {name: array for shard in shards for name, array in load_file(shard).items()}
    assert found.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert (tmp_path / "theirs" / "tokenizer.json").read_bytes() == (published / "tokenizer.json").read_bytes()
    described = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert described["architectures"] == ["Gemma4ForCausalLM"] and described["num_experts"] == 8
    assert run("import", published, f"out={tmp_path / 'ours'}") == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_is_missing_is_named(in_process, published, tmp_path, capsys, missing):
    (published / missing).unlink()
    assert run("import", published, f"out={tmp_path / 'ours'}") == 2
    assert missing in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("name", ["chat_template.jinja", "processor_config.json"])
def test_a_template_and_settings_are_read(in_process, published, tmp_path, capsys, name):
    (published / name).write_text("{{ 'Q: ' }}" if name.endswith("jinja") else "[]")
    assert run("import", published, f"out={tmp_path / 'ours'}") == 2
    assert name in capsys.readouterr().err and not (tmp_path / "ours").exists()


def test_a_name_that_is_no_folder_and_no_repository_is_refused(in_process, tmp_path, capsys):
    assert run("import", "no/such/folder", f"out={tmp_path / 'ours'}") == 2
    assert "no/such/folder" in capsys.readouterr().err


def test_a_checkpoint_is_quantised_and_measured(in_process, tiny_model, write_rows, tmp_path, capsys):
    checkpoint.save(one_layer(tiny_model), tmp_path / "model")
    rows = write_rows([{"prompt": "hello", "completion": "fine thanks"}])
    words = [tmp_path / "model", f"out={tmp_path / 'small'}"]
    assert run("quantize", *words, "weights=int8", f"data={rows}") == 0
    said = capsys.readouterr().out
    before, after = map(float, re.search(r"([\d.]+) nats a learned token before, ([\d.]+) after", said).groups())
    assert before != after and abs(before - after) < 0.05
    assert run("info", f"checkpoint={tmp_path / 'small'}") == 0
    assert run("quantize", *words) == 2


def test_what_cannot_be_quantised(in_process, tiny_model, write_rows, tmp_path, capsys, monkeypatch):
    checkpoint.save(scalar(tiny_model), tmp_path / "judge")
    rows = write_rows([{"prompt": "hello", "completion": "fine thanks"}])
    words = [tmp_path / "judge", f"out={tmp_path / 'small'}"]
    assert run("quantize", *words, f"data={rows}") == 2
    assert "leave it out" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "qwix", None)
    assert run("quantize", *words) == 2
    assert "quantised checkpoints need qwix, which is not installed: pip install" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["judge", "rows.jsonl"]


def test_a_reward_model_is_exported_as_a_classifier(in_process, tiny_model, tmp_path, capsys):
    model = scalar(tiny_model)
    model = replace(model, statistics={"mean": 0.0, "std": 1.0})
    checkpoint.save(model, tmp_path / "judge")
    assert run("export", tmp_path / "judge", f"out={tmp_path / 'theirs'}") == 2
    assert "picture encoder" in capsys.readouterr().err
    assert run("export", tmp_path / "judge", f"out={tmp_path / 'theirs'}", "towers=false", "dtype=float32") == 0
    described = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert described["architectures"] == ["Gemma4TextModel"] and described["num_labels"] == 1
    tensors = load_file(tmp_path / "theirs" / "model.safetensors")
    np.testing.assert_array_equal(tensors["score.weight"][0], model.params["head"]["weight"])
    np.testing.assert_array_equal(tensors["score.bias"][0], model.params["head"]["bias"])
    query = model.params["trunk"]["blocks"][0]["attention"]["query"]
    np.testing.assert_array_equal(tensors["model.layers.0.self_attn.q_proj.weight"], np.asarray(query).T)
