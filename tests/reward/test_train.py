"""Training of the reward model: that it learns, looks at pictures, resumes, and says what it knows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_world import Killed, as_rows, killed_at, one_layer, turn

import reward.train
from base_model import checkpoint
from reward.config import RewardConfig
from reward.data import preference_pairs
from reward.evaluation import evaluate_pairs
from reward.train import RewardTrainer
from training.checkpoint import content_digest, latest_step
from training.errors import BadInput
from training.loop import Diverged

OPTIONS = {
    "max_length": 96, "per_device_train_batch_size": 8, "max_steps": 60, "save_steps": 21, "eval_steps": 30,
    "learning_rate": 1e-2,
}  # fmt: skip
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220), "green": (30, 180, 60)}


def plain(colour, seed):
    """A picture of a square of a colour somewhere on white."""
    rng = np.random.default_rng(seed)
    image = np.full((16, 16, 3), 245, np.uint8)
    top, left = rng.integers(2, 7, 2)
    image[top : top + 8, left : left + 8] = np.array(COLOURS[colour]) + rng.integers(-15, 15, 3)
    return image


def mirrored(count, *, seed=0):
    """Pairs in twos: the same question and the same two answers about two pictures, right about one each."""
    rows = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        one, other = rng.permutation(list(COLOURS))[:2]
        for right, wrong in ((one, other), (other, one)):
            prompt = [turn("what colour", [plain(right, (seed, number))])]
            rows.append({"prompt": prompt, "chosen": right, "rejected": wrong, "source": "colours"})
    return rows


TEXT = [{"prompt": "hello", "chosen": "fine thanks", "rejected": "no", "source": "manners", "margin": 0.5}] * 2


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def rows():
    return as_rows([*mirrored(12), *TEXT])


@pytest.fixture(scope="module")
def trained(model, rows, tmp_path_factory):
    config = RewardConfig(output_dir=str(tmp_path_factory.mktemp("reward")), **OPTIONS)
    trainer = RewardTrainer(model, config, rows, rows)
    return trainer, trainer.train()


def metrics(trainer):
    return (Path(trainer.args.output_dir) / "metrics.jsonl").read_text()


def test_it_learns_to_look_and_without_the_picture_it_guesses(trained):
    report = trained[1]
    assert report["by_modality"]["image"]["share"] > 0.9
    # Mirrored pairs are told apart by nothing but the picture: exactly one of each two is right when it is hidden.
    assert report["picture_hidden"]["share"] == 0.5 and report["picture_hidden"]["count"] == 24
    assert report["by_source"]["manners"]["share"] == 1.0


def test_metrics_of_each_step(trained):
    lines = [json.loads(line) for line in metrics(trained[0]).splitlines()]
    assert len(lines) == 60 and lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert lines[0]["accuracy"] < 0.9 < lines[-1]["accuracy"]
    assert [line["step"] for line in lines if "eval_accuracy" in line] == [30, 60]
    assert lines[-1]["eval_accuracy"] == trained[1]["accuracy"]["share"]
    assert lines[-1]["eval_margin"] == trained[1]["margins"]["mean"] > 0


def test_the_evaluation_is_json(trained):
    report = trained[1]
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report) == {
        "pairs", "accuracy", "by_source", "by_modality", "margins", "calibration", "length_correlation",
        "picture_hidden",
    }  # fmt: skip


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, model, rows, tmp_path, monkeypatch):
    config = RewardConfig(output_dir=str(tmp_path), **OPTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(reward.train, "pack", killed_at(30, reward.train.pack))
        with pytest.raises(Killed):
            RewardTrainer(model, config, rows, rows).train()
    resumed = RewardTrainer(model, config, rows, rows)
    assert resumed.train() == trained[1]
    assert metrics(resumed) == metrics(trained[0])
    assert content_digest(resumed.model.params) == content_digest(trained[0].model.params)


def test_a_loss_that_is_not_a_number_ends_the_run_and_the_state_before_is_kept(model, rows, tmp_path, monkeypatch):
    trainer = RewardTrainer(model, RewardConfig(output_dir=str(tmp_path), **OPTIONS), rows, rows)
    packed, pack = [], reward.train.pack

    def breaks_the_margins_of_the_23rd(*arguments):
        packed.append(None)
        if len(packed) == 22:
            trainer._pairs[:] = [replace(pair, margin=float("nan")) for pair in trainer._pairs]
        return pack(*arguments)

    monkeypatch.setattr(reward.train, "pack", breaks_the_margins_of_the_23rd)
    with pytest.raises(Diverged, match="loss is nan at step 23; the run stops here and the last saved state is kept"):
        trainer.train()
    assert latest_step(tmp_path / "state") == 21


def test_adapters_and_the_head_are_trained_and_a_kill_changes_nothing(model, rows, tmp_path, monkeypatch):
    options = {**OPTIONS, "max_steps": 4, "save_steps": 2, "lora_r": 2, "eval_steps": 0}
    start = lambda name: RewardTrainer(model, RewardConfig(output_dir=str(tmp_path / name), **options), rows)  # noqa: E731
    whole = start("whole")
    first = whole.model.params
    whole.train()
    assert (np.asarray(whole.model.params["head"]["weight"]) != np.asarray(first["head"]["weight"])).all()
    trunk, before = whole.model.params["trunk"], first["trunk"]
    np.testing.assert_array_equal(trunk["embedding"], before["embedding"])
    assert (trunk["blocks"][0]["mlp"]["up"] != before["blocks"][0]["mlp"]["up"]).all()
    with monkeypatch.context() as patch:
        patch.setattr(reward.train, "pack", killed_at(4, reward.train.pack))
        with pytest.raises(Killed):
            start("killed").train()
    resumed = start("killed")
    resumed.train()
    assert content_digest(resumed.model.params) == content_digest(whole.model.params)


def test_a_later_epoch_may_pack_more_pairs_than_the_first(model, tmp_path, monkeypatch):
    """Nothing is compiled: only the batches are looked at."""
    rows = as_rows([*mirrored(1), *TEXT * 2])
    config = RewardConfig(output_dir=str(tmp_path), max_length=160, per_device_train_batch_size=1)

    def poor_then_rich(self, first, count):
        return [[0]] * count if count == self.rows_per_epoch > 1 else [[2, 3, 4, 5]] * count

    def look(*arguments, batch_at, **others):
        batch = batch_at(5, 1)
        assert batch.real.tolist() == [[True] * 4] and batch.margin.tolist() == [[0.5] * 4]
        assert batch.rows.segments.max() == 8
        raise Killed

    monkeypatch.setattr(reward.train.PackedStream, "rows", poor_then_rich)
    monkeypatch.setattr(reward.train, "minimise", look)
    with pytest.raises(Killed):
        RewardTrainer(model, config, rows).train()


def test_pictures_of_both_replies_count(model, tmp_path):
    rows = as_rows(mirrored(1))
    config = RewardConfig(output_dir=str(tmp_path), max_length=160, max_images=1)
    with pytest.raises(BadInput, match=r"^rows:1: 2 pictures do not fit in max_images \(1\)"):
        RewardTrainer(model, config, rows).train()


def test_saved_and_loaded_as_a_reward_model(trained, rows):
    trainer = trained[0]
    folder = trainer.save_model()
    loaded = checkpoint.load(folder, kind="scalar")
    assert content_digest(loaded.params) == content_digest(trainer.model.params)
    pairs = preference_pairs(rows, loaded, max_length=96)
    assert evaluate_pairs(loaded, pairs, seed=trainer.args.seed) == trained[1]
    with pytest.raises(BadInput, match="a language model is needed here"):
        RewardTrainer(folder, trainer.args, rows)


def test_without_held_out_pairs_there_are_no_figures(model, rows, tmp_path):
    assert RewardTrainer(model, RewardConfig(output_dir=str(tmp_path)), rows).evaluate() == {}
