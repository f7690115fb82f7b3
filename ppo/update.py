"""The PPO loss of policy and critic on a minibatch of a rollout, alone or with supervised rows beside it."""

from typing import Any

import jax.numpy as jnp

from base_model.likelihood import cross_entropy
from ppo.config import PPOConfig
from ppo.losses import aggregate, loss_denominator, policy_loss, value_loss
from ppo.ptx import Mixed
from ppo.rollout import Models, Rollout, response_log_probs, response_values
from training.step import Totals


def ppo_loss(models: Models, params: Any, batch: Rollout, *, config: PPOConfig) -> Totals:
    """Clipped policy loss plus vf_coef times the clipped value loss minus the entropy bonus, as sums and counts.

    Args:
        models: structure and vocabulary.
        params: `{"policy", "critic"}`.
        batch: rows of a rollout.
        config: options.
    """
    length, mask = config.response_length, batch.mask
    log_probs, entropy = response_log_probs(
        models, params["policy"], batch.sequences, length=length, temperature=config.temperature
    )
    values = response_values(models, params["critic"], batch.sequences, length=length)
    # Sums here: the whole minibatch's count divides them once, however many micro-batches there are.
    whole = jnp.float32(1)
    policy = policy_loss(
        log_probs, batch.log_probs, batch.advantages, mask,
        clip_low=config.cliprange, clip_high=config.cliprange_high or config.cliprange,
        dual_clip=config.dual_clip or None, aggregation=config.loss_aggregation, denominator=whole,
    )  # fmt: skip
    value = value_loss(
        values, batch.values, batch.returns, mask,
        clip=config.cliprange_value, aggregation=config.loss_aggregation, denominator=whole,
    )  # fmt: skip
    count = loss_denominator(mask, aggregation=config.loss_aggregation)
    tokens = mask.sum().astype(jnp.float32)
    bonus = aggregate(entropy, mask, aggregation=config.loss_aggregation, denominator=whole)
    total = policy.loss + config.vf_coef * value.loss - config.entropy_coef * bonus
    statistics = policy._asdict() | {f"value_{name}": x for name, x in value._asdict().items()}
    return {
        "loss": (total, count),
        "policy_loss": (statistics.pop("loss"), count),
        "value_loss": (statistics.pop("value_loss"), count),
        **{name: (mean * tokens, tokens) for name, mean in statistics.items()},
    }


def ppo_ptx_loss(models: Models, params: Any, batch: Mixed, *, config: PPOConfig) -> Totals:
    """The PPO loss plus ptx_coef times the mean cross-entropy of the supervised rows, as sums and counts.

    Args:
        models: structure and vocabulary.
        params: `{"policy", "critic"}`.
        batch: rows of a rollout, and supervised ones.
        config: options.
    """
    totals = ppo_loss(models, params, batch.rollout, config=config)
    loss, count = totals["loss"]
    nll, learned = cross_entropy(models.structure, params["policy"], batch.supervised)["loss"]
    mixed = loss + config.ptx_coef * batch.weight[0] * nll
    return totals | {"loss": (mixed, count), "ptx_loss": (nll, learned)}
