"""The learner's step is compiled while other work goes on, and not again when it is taken."""

import re

import jax
import jax.numpy as jnp
import optax
import pytest

import ppo.learner
from ppo.config import PPOConfig
from ppo.learner import Learner
from ppo.rollout import Models, Rollout
from training.sharding import make_mesh, replicated
from training.step import TrainState


def test_a_step_is_compiled_ahead_and_once(monkeypatch, caplog):
    traced = []

    def update(state, batch, frozen, *, loss, optimizer, micro_batches):
        traced.append(batch.mask.shape)
        return state._replace(step=state.step + 1), {name: batch.mask.sum() for name in ppo.learner._FIRST}

    monkeypatch.setattr(ppo.learner, "update", update)
    mesh = make_mesh()
    config = PPOConfig(per_device_train_batch_size=2, num_mini_batches=2, num_ppo_epochs=2, response_length=3)
    learner = Learner(Models(None, None), optax.sgd(0.1), mesh, minibatch=2, config=config)
    state = jax.device_put(TrainState(jnp.int32(0), {"w": jnp.zeros(3)}, (), {}), replicated(mesh))
    rollout = lambda state: Rollout(*[jnp.ones((4, 3)) + state.step] * len(Rollout._fields))  # noqa: E731
    learner.compile_ahead(state, rollout)
    learner._ahead.result()
    assert traced == [(2, 3)]
    made = rollout(state)
    with jax.log_compiles():
        state, metrics = learner.learn(state, made, 0)
    compiled = re.findall(r"compilation of jit\((.*?)\)", caplog.text)
    assert compiled and not [name for name in compiled if "update" in name or "unnamed" in name]
    assert len(traced) == 1 and int(state.step) == 4 and float(metrics["first_ratio_mean"]) == 6


def test_what_cannot_be_compiled_is_an_error_of_the_first_step(monkeypatch):
    def update(state, batch, frozen, **_):
        raise ValueError("no such loss")

    monkeypatch.setattr(ppo.learner, "update", update)
    config = PPOConfig(per_device_train_batch_size=2, num_mini_batches=2, response_length=3)
    learner = Learner(Models(None, None), optax.sgd(0.1), make_mesh(), minibatch=2, config=config)
    state = TrainState(jnp.int32(0), {}, (), {})
    rollout = lambda state: Rollout(*[jnp.ones((4, 3)) + state.step] * len(Rollout._fields))  # noqa: E731
    learner.compile_ahead(state, rollout)
    with pytest.raises(ValueError, match="no such loss"):
        learner.learn(state, rollout(state), 0)
