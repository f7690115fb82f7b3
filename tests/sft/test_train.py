"""Training, evaluation, packing, saving and resuming of SFT on a model of one layer."""

import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_world import Killed, as_rows, killed_at, one_layer, reply, talk_rows, turn

import sft.train
from base_model import checkpoint
from base_model.batch import pack
from base_model.checkpoint import structure_of
from base_model.likelihood import cross_entropy
from base_model.media import Media
from sft.config import SFTConfig
from sft.train import SFTTrainer
from training.checkpoint import content_digest
from training.errors import BadInput
from training.packing import PackedStream
from training.step import accumulate

OPTIONS = {"max_length": 64, "per_device_train_batch_size": 2, "max_steps": 20, "save_steps": 7, "learning_rate": 2e-2}


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def trained(model, picture, tmp_path_factory):
    """A finished run and what training returned."""
    config = SFTConfig(output_dir=str(tmp_path_factory.mktemp("sft")), eval_steps=10, **OPTIONS)
    trainer = SFTTrainer(model, config, talk_rows(picture), talk_rows(picture))
    before = trainer.evaluate()
    return trainer, before, trainer.train()


def metrics(trainer):
    return (Path(trainer.args.output_dir) / "metrics.jsonl").read_text()


def test_training_lowers_the_loss(trained):
    trainer, before, after = trained
    lines = [json.loads(line) for line in metrics(trainer).splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < 0.5 * lines[0]["loss"]
    assert after["loss"] < 0.5 * before["loss"] and before["exact_match"] == 0 < after["exact_match"]
    assert {line["step"] for line in lines if "eval_loss" in line} == {10, 20}
    assert lines[-1]["eval_loss"] == after["loss"] == trainer.evaluate()["loss"]
    assert 0 <= lines[-1]["token_accuracy"] <= 1 and lines[0]["grad_norm"] > 0


def test_the_figures_are_those_of_a_plain_loop(trained, model, room_for):
    trainer = trained[0]

    @jax.jit
    def logits(params, batch):
        decoder = nnx.merge(trainer._structure, params)
        return decoder.logits(decoder(batch.tokens, batch.positions, batch.segments, batch.media)[0])

    nll, exact = [], []
    for example in trainer._held_out:
        rows = np.asarray(logits(trainer.model.params, pack([[example]], 64, room_for(2))))[0]
        learned = np.flatnonzero(example.learn)
        rows, ids = rows[learned - 1].astype(np.float64), example.tokens[learned]
        nll += [np.log(np.exp(row).sum()) - row[token] for row, token in zip(rows, ids, strict=True)]
        exact.append((rows.argmax(1) == ids).all())
    figures = trainer.evaluate()
    assert figures["loss"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert figures["exact_match"] == np.mean(exact) > 0


@pytest.fixture
def batches(monkeypatch, tmp_path, model):
    """The first batches that a trainer would see, by which nothing is compiled."""

    def collect(rows, steps, **options):
        seen = []

        def look(*arguments, batch_at, config, **others):
            seen.extend(batch_at(step, config.per_device_train_batch_size) for step in range(steps))
            raise Killed

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(sft.train, "minimise", look)
            SFTTrainer(model, SFTConfig(output_dir=str(tmp_path), **options), rows).train()
        return seen

    return collect


def test_packing_changes_neither_loss_nor_gradient(model, picture, batches):
    rows = talk_rows(picture)
    options = {"max_length": 96, "max_images": 3, "per_device_train_batch_size": len(rows)}
    alone = batches(rows, 1, packing=False, **options)[0]
    lengths = [len(example) for example in SFTTrainer(model, SFTConfig(max_length=96), rows)._examples]
    epoch = PackedStream(lengths, 96, seed=0).rows_per_epoch
    together = batches(rows, 1, packing=True, **options)[0]
    assert epoch < len(rows) and together.segments.max() > 1
    # Rows of the first epoch only, the others empty; and as many places for pictures in both: one program for the two.
    keep = (np.arange(len(rows)) < epoch)[:, None]
    together = together._replace(segments=together.segments * keep, learn=together.learn & keep)
    images = alone.media.images
    places = ((0, 0), (0, 3 - images.shape[1]), (0, 0), (0, 0), (0, 0))
    alone = alone._replace(media=Media(np.pad(images, places)))
    structure = structure_of(model.config, model.tokenizer)
    gradient = jax.jit(partial(accumulate, partial(cross_entropy, structure), micro_batches=1))
    (first, totals), (second, packed) = (gradient(model.params, batch) for batch in (alone, together))
    for name in ("loss", "token_accuracy"):
        np.testing.assert_allclose(totals[name], packed[name], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), first, second)


def test_rows_hold_no_more_pictures_than_they_may_in_any_epoch(model, picture, tmp_path, batches):
    rows = as_rows({"messages": [turn("hi", [picture(n)] * (n % 4)), reply("a")]} for n in range(8))
    seen = batches(rows, 30, max_length=96, max_images=3, per_device_train_batch_size=2)
    assert {batch.media.images.shape[1] for batch in seen} == {3}
    assert max((batch.tokens == model.tokenizer.control("<image_soft_token>")).sum(1).max() for batch in seen) == 3 * 4
    with pytest.raises(BadInput, match=r"^rows:4: 3 pictures do not fit in max_images \(2\)"):
        SFTTrainer(model, SFTConfig(output_dir=str(tmp_path), max_length=96, max_images=2), rows).train()


def test_a_killed_run_goes_on_as_if_nothing_had_happened(trained, model, picture, tmp_path, monkeypatch):
    whole = trained[0]
    rows = talk_rows(picture)
    config = SFTConfig(output_dir=str(tmp_path), eval_steps=10, **OPTIONS)
    for call in (12, 5):  # after the state of step 7, then after that of step 7 again (11 = 7 + 4)
        with monkeypatch.context() as patch:
            patch.setattr(sft.train.PackedExamples, "batch", killed_at(call, sft.train.PackedExamples.batch))
            with pytest.raises(Killed):
                SFTTrainer(model, config, rows, rows).train()
    resumed = SFTTrainer(model, config, rows, rows)
    assert resumed.train() == trained[2]
    assert metrics(resumed) == metrics(whole)
    assert content_digest(resumed.model.params) == content_digest(whole.model.params)


def test_a_run_with_other_options_data_or_parent_is_not_resumed(trained, model, picture):
    trainer = trained[0]
    rows = talk_rows(picture)
    other = SFTConfig(output_dir=trainer.args.output_dir, eval_steps=10, **{**OPTIONS, "learning_rate": 1e-2})
    for arguments in (
        (model, other, rows, rows),
        (model, trainer.args, rows[:-1], rows),
        (trainer.model, trainer.args, rows),
    ):
        with pytest.raises(BadInput, match="the state of a run with other options, data or parent"):
            SFTTrainer(*arguments).train()


def test_what_is_saved_is_what_was_trained(trained, picture):
    trainer = trained[0]
    folder = trainer.save_model()
    loaded = checkpoint.load(folder)
    assert content_digest(loaded.params) == content_digest(trainer.model.params)
    rows = talk_rows(picture)
    assert SFTTrainer(folder, trainer.args, rows, rows).evaluate() == trainer.evaluate()
    with pytest.raises(BadInput, match="never overwritten"):
        trainer.save_model()
