from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training.config import TrainingConfig
from training.errors import BadInput
from training.optimizer import decayed, make_optimizer, make_schedule

CONFIG = TrainingConfig(learning_rate=0.1, warmup_ratio=0.1, decay_ratio=0.2)


def rates(kind, total=100, config=CONFIG):
    schedule = jax.jit(jax.vmap(make_schedule(replace(config, lr_scheduler_type=kind), total)))
    return np.asarray(schedule(jnp.arange(total + 1)))


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "warmup_stable_decay"])
def test_every_schedule_warms_up_to_its_peak(kind):
    rate = rates(kind)
    np.testing.assert_allclose(rate[:11], np.linspace(0.01, 0.1, 11), rtol=1e-5)
    assert rate.max() == pytest.approx(0.1) and (rate[1:] > 0)[:-1].all()
    assert (np.diff(rate[10:]) <= 1e-9).all()


def test_the_shapes_after_the_warm_up():
    place = np.arange(10, 101)
    np.testing.assert_allclose(rates("constant")[10:], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rates("linear")[10:], 0.1 * (100 - place) / 90, atol=1e-7)
    half_turn = (1 + np.cos(np.pi * (place - 10) / 90)) / 2
    np.testing.assert_allclose(rates("cosine")[10:], 0.1 * (0.02 + 0.98 * half_turn), rtol=1e-4)
    stable = rates("warmup_stable_decay")
    np.testing.assert_allclose(stable[10:81], 0.1, rtol=1e-6)
    np.testing.assert_allclose(stable[80:], np.linspace(0.1, 0.002, 21), rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "warmup_stable_decay"])
@pytest.mark.parametrize(
    ("total", "changes"), [(1, {}), (3, {}), (10, {"warmup_ratio": 0.0}), (10, {"warmup_ratio": 0.6, "decay_ratio": 1})]
)
def test_short_runs_have_finite_rates(kind, total, changes):
    rate = rates(kind, total, replace(CONFIG, **changes))
    assert np.isfinite(rate).all() and (rate[:total] > 0).all() and rate.max() <= 0.1 + 1e-7


def test_only_matrices_that_are_no_embedding_decay():
    params = {
        "embedding": jnp.ones((4, 3)),
        "blocks": {0: {"norm": {"weight": jnp.ones(3)}, "mlp": {"up": jnp.ones((3, 5))}}},
        "vision": {"kernels": {0: jnp.ones((3, 3, 2, 2))}, "biases": {0: jnp.ones(2)}},
    }
    assert decayed(params) == {
        "embedding": False,
        "blocks": {0: {"norm": {"weight": False}, "mlp": {"up": True}}},
        "vision": {"kernels": {0: True}, "biases": {0: False}},
    }


def test_a_step_is_that_of_clipped_adamw():
    config = replace(CONFIG, weight_decay=0.3, max_grad_norm=1.0, adam_epsilon=1e-5)
    optimizer = make_optimizer(config, optax.constant_schedule(0.1))
    params = {"up": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    gradients = {"up": jnp.array([[3.0, 0.0], [0.0, 0.0]]), "bias": jnp.array([4.0, 0.0])}
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(params), params)
    # The norm is 5, so the gradients become .6 and .8; the first step of Adam is g / (|g| + epsilon).
    np.testing.assert_allclose(updates["bias"], [-0.1 * 0.8 / (0.8 + 1e-5), 0], rtol=1e-4)
    step = np.array([[0.6 / (0.6 + 1e-5), 0], [0, 0]])
    np.testing.assert_allclose(updates["up"], -0.1 * (step + 0.3), rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr_scheduler_type": "step"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"max_grad_norm": -1.0},
        {"per_device_train_batch_size": 0},
        {"gradient_accumulation_steps": 0},
        {"num_train_epochs": 0.0},
        {"max_steps": 0},
        {"save_total_limit": 0},
        {"warmup_ratio": 1.5},
        {"decay_ratio": float("nan")},
        {"seed": -1},
        {"weight_decay": -0.1},
        {"adam_beta1": 1.0},
        {"adam_beta2": -0.1},
        {"eval_steps": -1},
        {"save_steps": -1},
        {"tensor_parallel": 0},
    ],
    ids=str,
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_steps_follow_from_epochs_unless_they_are_given():
    assert TrainingConfig(num_train_epochs=2.5).total_steps(100, 16) == 15
    assert TrainingConfig().total_steps(3, 16) == 1
    assert TrainingConfig(max_steps=7).total_steps(100, 16) == 7
