"""The losses of PPO under a mask, and the statistics that show whether an update went well.

rlax's `clipped_surrogate_pg_loss` has one epsilon for both sides and a plain mean, which on padded rows is wrong; it is
the tests' oracle instead.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import rlax
from jaxtyping import Array, Bool, Float

from ppo.kl import token_kl
from training.masked import masked_mean, masked_sum, masked_var, upcast

Aggregation = Literal[
    "token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum", "sequence_mean_token_sum_norm"
]

# exp(20) is 5e8: a ratio that far off is broken anyway, and past exp(88) float32 would turn the loss into inf and NaN.
LOG_RATIO_LIMIT = 20.0


class PolicyLoss(NamedTuple):
    """Result of `policy_loss`: scalars, of which only the loss carries a gradient.

    Attributes:
      loss: to be minimised.
      clip_fraction: share of tokens whose clipped surrogate is the one that counts.
      dual_clip_fraction: share of tokens stopped by the dual clip; 0 without it.
      approx_kl_k1: mean a token of KL(old || new), estimator k1; likewise k2 and k3.
      approx_kl_k2: see k1.
      approx_kl_k3: see k1.
      ratio_mean: mean of pi / pi_old over tokens.
      ratio_var: its unbiased variance over tokens.
    """

    loss: Float[Array, ""]
    clip_fraction: Float[Array, ""]
    dual_clip_fraction: Float[Array, ""]
    approx_kl_k1: Float[Array, ""]
    approx_kl_k2: Float[Array, ""]
    approx_kl_k3: Float[Array, ""]
    ratio_mean: Float[Array, ""]
    ratio_var: Float[Array, ""]


class ValueLoss(NamedTuple):
    """Result of `value_loss`: scalars, of which only the loss carries a gradient.

    Attributes:
      loss: to be minimised, after multiplication by the trainer's vf_coef.
      clip_fraction: share of tokens whose clipped error is the larger.
      squared_error: mean of (v - return)^2.
      explained_variance: 1 - var(return - v) / var(return); 0 if the returns do not vary.
    """

    loss: Float[Array, ""]
    clip_fraction: Float[Array, ""]
    squared_error: Float[Array, ""]
    explained_variance: Float[Array, ""]


def loss_denominator(mask: Bool[Array, "B T"], *, aggregation: Aggregation = "token_mean") -> Float[Array, ""]:
    """What `aggregate` divides by: tokens for "token_mean", else responses that have a token.

    Args:
      mask: of the whole minibatch when it is to be split into micro-batches.
      aggregation: as for `aggregate`.

    Returns:
      A count, as a float32 scalar.
    """
    counted = mask if aggregation == "token_mean" else jnp.any(mask, axis=-1)
    return jnp.sum(counted, dtype=jnp.float32)


def aggregate(
    x: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    aggregation: Aggregation = "token_mean",
    denominator: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """Reduces losses of tokens to one.

    Args:
      x: a loss a token.
      mask: True on response tokens.
      aggregation: one of
        "token_mean": every token weighs the same;
        "sequence_mean_token_mean": every response weighs the same;
        "sequence_mean_token_sum": mean over responses of their sums;
        "sequence_mean_token_sum_norm": that divided by the padded length T, a constant, so that a long response's
        tokens are not discounted (Liu et al., "Understanding R1-Zero-Like Training", 2025).
      denominator: `loss_denominator` of the whole minibatch. The losses of its micro-batches then add up to the loss of
        the minibatch, and so do their gradients. None: this batch is the whole one.

    Returns:
      A scalar, 0 if the mask keeps nothing.

    Raises:
      ValueError: no such aggregation.
    """
    match aggregation:
        case "token_mean" | "sequence_mean_token_sum":
            total = masked_sum(x, mask)
        case "sequence_mean_token_mean":
            total = jnp.sum(masked_mean(x, mask, axis=-1))
        case "sequence_mean_token_sum_norm":
            total = masked_sum(x, mask) / x.shape[-1]
        case _:
            known = ", ".join(Aggregation.__args__)
            raise ValueError(f"aggregation must be one of {known}, got {aggregation!r}")
    if denominator is None:
        denominator = loss_denominator(mask, aggregation=aggregation)
    return total / jnp.maximum(denominator, 1)


def policy_loss(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
    aggregation: Aggregation = "token_mean",
    denominator: Float[Array, ""] | None = None,
) -> PolicyLoss:
    """Clipped surrogate loss.

    rho = exp(log pi - log pi_old);  L = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high));  where A < 0 and with a
    dual clip, L = min(L, -c A).

    Schulman et al., "Proximal Policy Optimization Algorithms" (2017), equation 7; the dual clip: Ye et al., "Mastering
    Complex Control in MOBA Games with Deep Reinforcement Learning" (2020); clip_high > clip_low: Yu et al., "DAPO"
    (2025), section 3.1.
    Departure: log rho is held within +-20.

    Args:
      logprobs: log pi of the response tokens, the only input with a gradient.
      old_logprobs: the same at the time of the rollout.
      advantages: usually whitened.
      mask: True on response tokens.
      clip_low: how far the ratio may fall below 1.
      clip_high: how far it may rise above 1.
      dual_clip: c > 1, the most a bad token's ratio counts, or None.
      aggregation: see `aggregate`.
      denominator: see `aggregate`. The statistics are always means over this batch.

    Returns:
      Loss and statistics, in float32 or wider.

    Raises:
      ValueError: dual_clip is not greater than 1, or there is no such aggregation.
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip must be greater than 1, got {dual_clip}; pass None to do without")
    # Cleared before exp: whatever stands on padding could overflow there and its gradient would be NaN.
    logprobs = jnp.where(mask, upcast(logprobs), 0)
    old_logprobs = jax.lax.stop_gradient(jnp.where(mask, upcast(old_logprobs), 0))
    advantages = jax.lax.stop_gradient(jnp.where(mask, upcast(advantages), 0))

    log_ratio = jnp.clip(logprobs - old_logprobs, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = jnp.exp(log_ratio)
    unclipped = -advantages * ratio
    clipped = -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
    losses = jnp.maximum(unclipped, clipped)
    stopped = jnp.zeros_like(mask)
    if dual_clip is not None:
        ceiling = -advantages * dual_clip
        stopped = (advantages < 0) & (losses > ceiling)
        losses = jnp.where(stopped, ceiling, losses)

    ratio = jax.lax.stop_gradient(ratio)
    fallen = -jax.lax.stop_gradient(log_ratio)  # log pi_old - log pi: the rollout was sampled from pi_old
    zero = jnp.zeros_like(fallen)
    return PolicyLoss(
        loss=aggregate(losses, mask, aggregation=aggregation, denominator=denominator),
        clip_fraction=masked_mean(clipped > unclipped, mask),
        dual_clip_fraction=masked_mean(stopped, mask),
        approx_kl_k1=masked_mean(token_kl(fallen, zero, estimator="k1"), mask),
        approx_kl_k2=masked_mean(token_kl(fallen, zero, estimator="k2"), mask),
        approx_kl_k3=masked_mean(token_kl(fallen, zero, estimator="k3"), mask),
        ratio_mean=masked_mean(ratio, mask),
        ratio_var=masked_var(ratio, mask),
    )


def value_loss(
    values: Float[Array, "B T"],
    old_values: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    clip: float | None = 0.2,
    aggregation: Aggregation = "token_mean",
    denominator: Float[Array, ""] | None = None,
) -> ValueLoss:
    """Clipped squared error of the critic, the factor one half included.

    L = max((v - R)^2, (clip(v, v_old - eps, v_old + eps) - R)^2) / 2

    Not in the PPO paper but in its authors' code: the critic moves at most eps away from the rollout's values.

    Args:
      values: v of the critic being trained, before each token; the only input with a gradient.
      old_values: the same at the time of the rollout.
      returns: R, of `advantages.generalised_advantages`.
      mask: True on response tokens.
      clip: eps in the unit of the rewards, or None for the plain squared error.
      aggregation: see `aggregate`.
      denominator: see `aggregate`. The statistics are always means over this batch.

    Returns:
      Loss and statistics, in float32 or wider.

    Raises:
      ValueError: no such aggregation.
    """
    values = jnp.where(mask, upcast(values), 0)
    old_values = jax.lax.stop_gradient(jnp.where(mask, upcast(old_values), 0))
    returns = jax.lax.stop_gradient(jnp.where(mask, upcast(returns), 0))

    unclipped = rlax.l2_loss(values, returns)  # has the one half
    held = values if clip is None else jnp.clip(values, old_values - clip, old_values + clip)
    clipped = rlax.l2_loss(held, returns)

    errors = returns - jax.lax.stop_gradient(values)
    spread = masked_var(returns, mask)
    varies = spread > 0
    return ValueLoss(
        loss=aggregate(jnp.maximum(unclipped, clipped), mask, aggregation=aggregation, denominator=denominator),
        clip_fraction=masked_mean(jnp.greater(clipped, unclipped), mask),
        squared_error=masked_mean(jnp.square(errors), mask),
        explained_variance=jnp.where(varies, 1 - masked_var(errors, mask) / jnp.where(varies, spread, 1), 0),
    )
