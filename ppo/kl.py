"""Estimates of the divergence from a reference policy, and the controller of its coefficient.

The estimators are those of Schulman, "Approximating KL divergence" (2020), for tokens sampled from pi, with
d = log pi - log pi_ref:

    k1 = d                  unbiased, of either sign: the one for the reward
    k2 = d^2 / 2            its gradient as a loss is that of KL(pi || pi_ref)
    k3 = exp(-d) - 1 + d    unbiased and never negative; its gradient is not that of KL(pi || pi_ref)

As a loss k1 has zero expected gradient on policy. Put the divergence into the reward or into the loss, not both.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from training.masked import masked_sum, upcast

KLEstimator = Literal["k1", "k2", "k3"]


def token_kl(
    logprobs: Float[Array, "B T"], ref_logprobs: Float[Array, "B T"], *, estimator: KLEstimator = "k1"
) -> Float[Array, "B T"]:
    """One estimate a token of KL(pi || pi_ref), in nats.

    Args:
      logprobs: log pi of the tokens, which pi sampled.
      ref_logprobs: log pi_ref of the same tokens.
      estimator: "k1", "k2" or "k3".

    Returns:
      Estimates in float32 or wider, padding included: mask before use.

    Raises:
      ValueError: no such estimator.
    """
    d = upcast(logprobs) - upcast(ref_logprobs)
    match estimator:
        case "k1":
            return d
        case "k2":
            return jnp.square(d) / 2
        case "k3":
            return jnp.expm1(-d) + d  # expm1: near d = 0 the 1s would cancel all digits of d^2 / 2
    raise ValueError(f"estimator must be 'k1', 'k2' or 'k3', got {estimator!r}")


def mean_sequence_kl(kl: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, ""]:
    """Mean over responses of the sum over tokens, in nats a response.

    This is what the controller below wants. Fed with a mean over tokens it would see a divergence some hundred times
    too small and drive the coefficient to 0. A response without tokens counts as one of divergence 0.

    Args:
      kl: estimates a token, of `token_kl`.
      mask: True on response tokens.

    Returns:
      A scalar.
    """
    return jnp.mean(masked_sum(kl, mask, axis=-1))


class KLControllerState(NamedTuple):
    """State of the coefficient's controller.

    Attributes:
      coefficient: beta, which multiplies the divergence in the reward; a scalar.
      spent: running mean over rollouts of the divergence, which a budget limits; a scalar.
    """

    coefficient: Float[Array, ""]
    spent: Float[Array, ""] | float = 0.0


def update_kl_controller(
    state: KLControllerState,
    kl: Float[Array, ""],
    *,
    episodes: int,
    target: float = 6.0,
    horizon: float | None = 10_000.0,
) -> KLControllerState:
    """Moves beta towards the value at which the divergence meets its target.

    e = clip(KL / target - 1, -0.2, 0.2);  beta <- beta * (1 + e * episodes / horizon)

    Ziegler et al., "Fine-Tuning Language Models from Human Preferences" (2019), section 2.2.

    Args:
      state: the coefficient in use.
      kl: `mean_sequence_kl` of k1 over the rollout just made.
      episodes: responses in that rollout.
      target: divergence to hold, in nats a response.
      horizon: episodes over which the error takes effect, or None for a coefficient that stays as it is.

    Returns:
      The coefficient for the next rollout, and the running mean, in which this rollout counts a quarter.

    Raises:
      ValueError: the rollout is so large beside the horizon that one step could turn the coefficient negative.
    """
    spent = 0.75 * state.spent + 0.25 * kl
    if horizon is None:
        return state._replace(spent=spent)
    if episodes >= 5 * horizon:
        raise ValueError(f"horizon must exceed a fifth of a rollout's {episodes} episodes, got {horizon}; raise it")
    error = jnp.clip(kl / target - 1, -0.2, 0.2)
    return KLControllerState(state.coefficient * (1 + error * episodes / horizon), spent)
