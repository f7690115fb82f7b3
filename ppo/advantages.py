"""Generalised advantage estimation over masked responses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import rlax
from jaxtyping import Array, Bool, Float

from training.masked import masked_whiten, upcast


class Advantages(NamedTuple):
    """Result of `generalised_advantages`.

    Attributes:
      advantages: [B, T] before whitening, 0 on padding.
      returns: [B, T] advantages + values, the critic's targets, 0 on padding.
    """

    advantages: Float[Array, "B T"]
    returns: Float[Array, "B T"]


def generalised_advantages(
    rewards: Float[Array, "B T"],
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Advantages:
    """Advantages and returns of each response token, in float32 or wider.

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  return_t = A_t + V_t

    t + 1 is the next token the mask keeps: tokens that the policy did not write, such as a tool's output, are
    stepped over and cost no discount. V is 0 beyond the last token. Schulman et al., "High-Dimensional Continuous
    Control Using Generalized Advantage Estimation" (2016), equation 16.

    Args:
      rewards: r, of each token.
      values: V of the state before each token.
      mask: True on response tokens. Rewards and values elsewhere are ignored.
      gamma: discount.
      lam: lambda in [0, 1]; 1 gives Monte Carlo returns, 0 one-step errors.

    Returns:
      Advantages, not whitened, and returns.
    """
    rewards = jnp.where(mask, upcast(rewards), 0)
    values = jnp.where(mask, upcast(values), 0)
    # rlax knows no mask. A token to be stepped over gets the value of the next kept one (0 beyond the last), no reward,
    # and discount and lambda 1: its delta is then 0 and the trace passes through it unchanged.
    length = mask.shape[1]
    next_kept = jax.lax.cummin(jnp.where(mask, jnp.arange(length), length), axis=1, reverse=True)
    beyond = jnp.zeros_like(values[:, :1])
    filled = jnp.take_along_axis(jnp.concatenate([values, beyond], axis=1), next_kept, axis=1)
    advantages = jax.vmap(rlax.truncated_generalized_advantage_estimation)(
        rewards,
        jnp.where(mask, gamma, jnp.ones_like(rewards)),
        jnp.where(mask, lam, jnp.ones_like(rewards)),
        jnp.concatenate([filled, beyond], axis=1),
    )
    advantages = jnp.where(mask, advantages, 0)
    return Advantages(advantages=advantages, returns=advantages + values)


def whiten_advantages(advantages: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Scales advantages to mean 0 and variance 1 over all response tokens of the rollout.

    Over the rollout, not a minibatch, so that a token's advantage does not depend on its neighbours in the shuffle.

    Args:
      advantages: of `generalised_advantages`.
      mask: True on response tokens.

    Returns:
      Advantages, 0 on padding.
    """
    return masked_whiten(advantages, mask)
