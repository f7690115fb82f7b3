import json
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from training.checkpoint import StateStore, latest_step
from training.config import TrainingConfig
from training.errors import BadInput
from training.loop import Diverged, Probe, fit, probe_of
from training.metrics import MetricsWriter, read_metrics
from training.optimizer import make_optimizer, make_schedule
from training.step import TrainState, update

STEPS = 8
CONFIG = TrainingConfig(save_steps=3, eval_steps=2, save_total_limit=2, learning_rate=0.1)
OPTIMIZER = make_optimizer(CONFIG, make_schedule(CONFIG, STEPS))
# Orbax leaves the other reads of a failed restore unawaited; Python says so when it collects them.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def loss(params, batch):
    return {"loss": (((batch @ params["w"]) ** 2).sum(), jnp.float32(len(batch)))}


jitted = jax.jit(partial(update, loss=loss, optimizer=OPTIMIZER, micro_batches=2), donate_argnums=0)


def initial():
    params = {"w": jnp.arange(6.0).reshape(3, 2)}
    return TrainState(jnp.int32(0), params, OPTIMIZER.init(params), {"beta": jnp.float32(0.1)})


def step(state, index, *, stop_at=None, poison=None):
    """A step whose data follows from its number; it can be made to fail or to be given a NaN."""
    if index == stop_at:
        raise KeyboardInterrupt
    batch = np.random.default_rng((5, index)).normal(size=(4, 3)).astype(np.float32)
    if index == poison:
        batch[0] = np.nan
    state, metrics = jitted(state, batch)
    return state._replace(extra={"beta": state.extra["beta"] * 1.1}), metrics


PROBE = Probe(3, lambda state: {"first": float(state.params["w"][0, 1])})


def run(folder, step=step, *, config=CONFIG, identity="one", state=None, total_steps=STEPS, probe=PROBE):
    return fit(
        initial() if state is None else state,
        step,
        total_steps=total_steps,
        config=config,
        folder=folder,
        label="test",
        identity=identity,
        evaluate=lambda state: {"size": float(jnp.abs(state.params["w"]).sum())},
        probe=probe,
    )


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted: its folder and its last state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.mark.parametrize("stop_at", [0, 1, 4, 7])
def test_a_resumed_run_is_bit_equal_to_one_that_was_not_interrupted(whole, tmp_path, stop_at):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, partial(step, stop_at=stop_at))
    assert latest_step(tmp_path / "state") == (stop_at // 3 * 3 or None)
    assert_equal(run(tmp_path), whole[1])
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_what_was_logged_past_the_saved_state_is_logged_once(whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, partial(step, stop_at=5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "los')  # killed in the middle of a line
    run(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_metrics_of_every_step_and_evaluations_when_due(whole):
    lines = read_metrics(whole[0] / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 for line in lines)
    assert [line["step"] for line in lines if "eval_size" in line] == [2, 4, 6, 8]
    assert lines[-1]["eval_size"] == pytest.approx(float(jnp.abs(whole[1].params["w"]).sum()))
    assert any((whole[0] / "tensorboard").iterdir())


def test_a_probe_is_logged_when_due_and_changes_nothing(whole, tmp_path):
    lines = read_metrics(whole[0] / "metrics.jsonl")
    assert [line["step"] for line in lines if "probe_first" in line] == [3, 6, 8]
    assert lines[-1]["probe_first"] == float(whole[1].params["w"][0, 1])
    assert_equal(run(tmp_path, probe=None), whole[1])
    without = [{name: line[name] for name in line if name != "probe_first"} for line in lines]
    assert read_metrics(tmp_path / "metrics.jsonl") == without


def test_a_probe_that_is_asked_for_and_missing():
    assert probe_of(0, None, lambda state: state) is None and probe_of(0, lambda model: {}, lambda state: state) is None
    assert probe_of(2, lambda model: {"a": model}, lambda state: state + 1).measure(3) == {"a": 4}
    with pytest.raises(BadInput, match="probe_steps is 2, and the trainer was given no probe"):
        probe_of(2, None, lambda state: state)


def test_a_run_can_end_before_its_last_step(tmp_path):
    def until_half(folder, step=step):
        return fit(
            initial(), step, total_steps=STEPS, config=CONFIG, folder=folder, label="test", identity="one",
            ended=lambda state: float(state.extra["beta"]) > 0.1 * 1.1**4.5,
        )  # fmt: skip

    half = until_half(tmp_path / "ended")
    assert_equal(half, run(tmp_path / "short", total_steps=5, probe=None))
    assert [line["step"] for line in read_metrics(tmp_path / "ended" / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    assert_equal(half, until_half(tmp_path / "ended", partial(step, stop_at=5)))


def test_a_finished_run_is_returned_without_a_step(whole, tmp_path):
    def never(state, index):
        raise AssertionError("no step is left")

    assert_equal(run(whole[0], never), whole[1])


def test_a_state_is_read_by_the_shapes_of_the_one_that_was_made(whole, monkeypatch):
    def watched(store, step, like, restore=StateStore.restore):
        assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(like)), "it would lie beside the other"
        return restore(store, step, like)

    monkeypatch.setattr(StateStore, "restore", watched)
    assert_equal(run(whole[0]), whole[1])


def test_only_so_many_states_are_kept(whole):
    assert sorted(int(path.name) for path in (whole[0] / "state").iterdir()) == [6, 8]


def test_the_state_of_another_run_is_refused(whole):
    with pytest.raises(BadInput, match="other options, data or parent"):
        run(whole[0], identity="two")


def test_a_state_of_another_shape_is_refused(whole):
    params = {"w": jnp.ones((3, 3))}
    other = TrainState(jnp.int32(0), params, OPTIMIZER.init(params), {"beta": jnp.float32(0.1)})
    with pytest.raises(BadInput, match="damaged or of another model"):
        run(whole[0], state=other)


@pytest.mark.parametrize("poison", [2, 4, 5])
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_last_good_state(tmp_path, poison):
    with pytest.raises(Diverged, match=f"loss is nan at step {poison + 1}"):
        run(tmp_path, partial(step, poison=poison))
    assert latest_step(tmp_path / "state") == (poison // 3 * 3 or None)
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert lines[-1]["step"] == poison + 1 and lines[-1]["loss"] is None
    healed = run(tmp_path)
    assert np.isfinite(healed.params["w"]).all()


def test_without_save_steps_the_end_is_saved(tmp_path):
    run(tmp_path, config=replace(CONFIG, save_steps=0, eval_steps=0), total_steps=3)
    assert latest_step(tmp_path / "state") == 3
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert ["eval_size" in line for line in lines] == [False, False, True]


def test_a_flipped_byte_never_gives_another_state(tmp_path):
    expected, refused = run(tmp_path, total_steps=3), {}
    store = StateStore(tmp_path / "state")
    for path in sorted(path for path in (tmp_path / "state").rglob("*") if path.is_file()):
        content = path.read_bytes()
        if not content:
            continue
        damaged = bytearray(content)
        damaged[len(damaged) // 2] ^= 0x15
        path.write_bytes(bytes(damaged))
        try:
            state, meta = store.restore(3, initial())
            assert_equal(state, expected)
            assert meta["identity"] == "one"
            refused[path.name] = False
        except BadInput as error:
            assert "delete that folder" in str(error)
            refused[path.name] = True
        path.write_bytes(content)
    store.close()
    assert sum(refused.values()) >= 2
    assert_equal(run(tmp_path, total_steps=3), expected)


def test_an_interrupted_save_is_not_taken_for_a_state(tmp_path):
    run(tmp_path, total_steps=3)
    (tmp_path / "state" / "6.orbax-checkpoint-tmp").mkdir()
    assert latest_step(tmp_path / "state") == 3
    assert latest_step(tmp_path / "nothing") is None and not (tmp_path / "nothing").exists()


def test_numbers_that_are_not_finite_stand_as_null(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as writer:
        writer.write(1, {"a": float("inf"), "b": 2})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "a": None, "b": 2.0}


def test_metrics_of_a_file_that_is_not_there(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
