"""Who learns from rollouts: shuffled minibatches, and one optimizer step on each."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ppo.config import PPOConfig
from ppo.ptx import SupervisedRows
from ppo.rollout import Models, Rollout
from ppo.update import ppo_loss, ppo_ptx_loss
from training.lora import Frozen
from training.sharding import shard_batch
from training.step import TrainState, update

# What the first minibatch of a rollout must show, for nothing has been updated yet: ratio 1, clip fraction 0.
_FIRST = ("ratio_mean", "ratio_var", "clip_fraction", "approx_kl_k3")


class Learner:
    """Passes over rollouts with one jitted step; the order of episodes follows from the rollout's number."""

    def __init__(
        self,
        models: Models,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        *,
        minibatch: int,
        config: PPOConfig,
        frozen: Frozen | None = None,
        supervised: SupervisedRows | None = None,
    ):
        """Prepares the step, which is compiled when it is first taken.

        Args:
            models: structure and vocabulary.
            optimizer: of policy and critic together.
            mesh: where minibatches go.
            minibatch: episodes of one optimizer step, over all devices.
            config: options.
            frozen: what is adapted, if adapters are trained (training/lora.py).
            supervised: rows beside every minibatch (ppo/ptx.py), if there are to be any.
        """
        self._mesh, self._minibatch, self._config, self._frozen = mesh, minibatch, config, frozen
        self._supervised = supervised
        loss = partial(ppo_ptx_loss if supervised else ppo_loss, models, config=config)
        self._step = jax.jit(
            partial(update, loss=loss, optimizer=optimizer, micro_batches=config.gradient_accumulation_steps),
            donate_argnums=0,
        )

    def learn(self, state: TrainState, rollout: Rollout, index: int) -> tuple[TrainState, dict[str, Any]]:
        """Passes over rollout number `index`, fewer than num_ppo_epochs when the policy has moved beyond target_kl.

        Returns:
            The state, and the metrics of all minibatches, averaged; of the first one beside them as `first_<name>`.
        """
        config, updates = self._config, list[Mapping[str, Any]]()
        for epoch in range(config.num_ppo_epochs):
            order = np.random.default_rng((config.seed, index, epoch)).permutation(len(rollout.mask))
            for number, rows in enumerate(order.reshape(config.num_mini_batches, self._minibatch)):
                part: Any = jax.tree.map(lambda x: x[rows], rollout)  # noqa: B023
                if self._supervised is not None:
                    before = (index * config.num_ppo_epochs + epoch) * config.num_mini_batches
                    part = self._supervised.beside(part, before + number)
                state, report = self._step(state, shard_batch(part, self._mesh), self._frozen)
                updates.append(report)
            if config.target_kl and float(updates[-1]["approx_kl_k3"]) > config.target_kl:
                break
        means = {name: sum(report[name] for report in updates) / len(updates) for name in updates[0]}
        return state, {**means, **{f"first_{name}": updates[0][name] for name in _FIRST}}
