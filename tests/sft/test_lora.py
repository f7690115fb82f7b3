"""SFT of adapters on a model of one layer: what moves, what is saved, a kill, and what is written."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_world import Killed, killed_at, one_layer, talk_rows

import sft.train
from base_model import checkpoint
from base_model.published.exporting import export_model
from sft.config import SFTConfig
from sft.train import SFTTrainer
from training.checkpoint import StateStore, content_digest

OPTIONS = {
    "max_length": 64, "per_device_train_batch_size": 2, "max_steps": 8, "save_steps": 3, "eval_steps": 8,
    "learning_rate": 2e-2, "gradient_checkpointing": True, "lora_r": 2, "lora_alpha": 4.0,
    "lora_target_modules": "query,down",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def start(model, picture):
    """Makes a trainer that writes to a folder."""
    rows = talk_rows(picture)
    return lambda folder: SFTTrainer(model, SFTConfig(output_dir=str(folder), **OPTIONS), rows, rows)


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory):
    """A finished run: trainer, figures before and after."""
    trainer = start(tmp_path_factory.mktemp("sft"))
    return trainer, trainer.evaluate(), trainer.train()


def test_chosen_matrices_move_by_a_low_rank_and_nothing_else_does(trained, model):
    trainer, before, after = trained
    assert after["loss"] < before["loss"] - 0.1
    change = jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), trainer.model.params, model.params)
    layer = change["blocks"][0]
    for matrix in (layer["attention"].pop("query"), layer["mlp"].pop("down")):
        assert np.linalg.matrix_rank(matrix, tol=1e-4 * np.abs(matrix).max()) == 2
    assert not any(leaf.any() for leaf in jax.tree.leaves(change))


def test_a_state_holds_adapters_and_their_moments(trained, model):
    store = StateStore(Path(trained[0].args.output_dir) / "state")
    try:
        state = store._manager.restore(8)["state"]
    finally:
        store.close()
    adapters = sum(leaf.size for leaf in jax.tree.leaves(state["params"]))
    assert adapters == 2 * (32 + 32) + 2 * (48 + 32)
    assert sum(np.size(leaf) > 1 for leaf in jax.tree.leaves(state)) == 3 * 4
    assert sum(np.size(leaf) for leaf in jax.tree.leaves(state) if np.size(leaf) > 1) == 3 * adapters


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, start, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sft.train.PackedExamples, "batch", killed_at(6, sft.train.PackedExamples.batch))
        with pytest.raises(Killed):
            start(tmp_path).train()
    resumed = start(tmp_path)
    assert resumed.train() == trained[2]
    assert (tmp_path / "metrics.jsonl").read_text() == Path(trained[0].args.output_dir, "metrics.jsonl").read_text()
    assert content_digest(resumed.model.params) == content_digest(trained[0].model.params)


def test_what_is_written_is_an_ordinary_model_with_adapters_merged(trained, start, model, tmp_path):
    loaded = checkpoint.load(trained[0].save_model())
    assert content_digest(loaded.params) == content_digest(trained[0].model.params)
    judged = start(tmp_path)
    judged.model = loaded
    assert judged.evaluate() == trained[2]
    for name, one in (("parent", model), ("child", loaded)):
        export_model(one, tmp_path / name, towers=False, dtype="float32")
    parent, child = (load_file(tmp_path / name / "model.safetensors") for name in ("parent", "child"))
    assert {name: x.shape for name, x in parent.items()} == {name: x.shape for name, x in child.items()}
    changed = {name.split(".", 3)[-1] for name in parent if (parent[name] != child[name]).any()}
    assert changed == {"self_attn.q_proj.weight", "mlp.down_proj.weight"}
