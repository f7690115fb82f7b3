"""AdamW with warm-up, clipping and a decay that spares norms, biases and embeddings."""

from typing import Any

import jax
import optax

from training.config import TrainingConfig


def make_schedule(config: TrainingConfig, total_steps: int) -> optax.Schedule:
    """Learning rate by optimizer step: linear warm-up, then the configured shape down to 2 % (linear: to 0)."""
    peak, warmup = config.learning_rate, int(config.warmup_ratio * total_steps)
    rest = max(1, total_steps - warmup)
    if config.lr_scheduler_type == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=0.02)
    elif config.lr_scheduler_type == "linear":
        after = optax.linear_schedule(peak, 0.0, rest)
    elif config.lr_scheduler_type == "warmup_stable_decay":
        decay = max(1, int(config.decay_ratio * total_steps))
        after = optax.linear_schedule(peak, 0.02 * peak, decay, transition_begin=max(0, rest - decay))
    else:
        after = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(peak / max(1, warmup), peak, max(1, warmup)), after], [warmup])


def make_optimizer(config: TrainingConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clip by global norm, AdamW."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            schedule,
            b1=config.adam_beta1,
            b2=config.adam_beta2,
            eps=config.adam_epsilon,
            weight_decay=config.weight_decay,
            mask=decayed,
        ),
    )


def decayed(params: Any) -> Any:
    """Which parameters decay: matrices and kernels, but no embedding."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and not any(getattr(key, "key", None) == "embedding" for key in path), params
    )
