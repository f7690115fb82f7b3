"""The loss of a reward model on pairs of responses."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from training.masked import masked_mean, upcast


class PairLoss(NamedTuple):
    """Result of `bradley_terry_loss`: scalars, of which only the loss carries a gradient.

    Attributes:
      loss: to be minimised.
      accuracy: share of pairs with chosen > rejected; a tie is wrong.
      margin: mean of chosen - rejected.
      reward: mean over chosen and rejected alike.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    margin: Float[Array, ""]
    reward: Float[Array, ""]


def bradley_terry_loss(
    chosen: Float[Array, "N"],
    rejected: Float[Array, "N"],
    mask: Bool[Array, "N"],
    *,
    margin: Float[Array, "N"] | None = None,
    centring: float = 0.0,
    label_smoothing: float = 0.0,
) -> PairLoss:
    """Negative log-likelihood of the preferences under the Bradley-Terry model.

    d = r_c - r_r - margin;  L = -(1 - s) log sigmoid(d) - s log sigmoid(-d) + lambda (r_c + r_r)^2

    Ouyang et al., "Training language models to follow instructions with human feedback" (2022), equation 1; margin:
    Touvron et al., "Llama 2" (2023), equation 2; centring: Eisenstein et al., "Helping or Herding?" (2023), equation 2;
    label smoothing: Mitchell, "A note on DPO with noisy preferences" (2023).

    Args:
      chosen: r_c, rewards of the preferred responses.
      rejected: r_r, rewards of the others.
      mask: True on real pairs, False on those that only fill up the batch.
      margin: by how much r_c should lead, at least 0, or None for 0.
      centring: lambda; keeps the mean reward, which the pairs leave free, near 0.
      label_smoothing: s, the assumed share of pairs with the labels swapped.

    Returns:
      Loss and statistics, means over the real pairs, in float32 or wider.

    Raises:
      ValueError: label_smoothing outside [0, 0.5), where the labels would mean nothing or their opposite.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}")
    chosen = jnp.where(mask, upcast(chosen), 0)
    rejected = jnp.where(mask, upcast(rejected), 0)
    lead = chosen - rejected
    d = lead if margin is None else lead - jnp.where(mask, upcast(margin), 0)
    # log(sigmoid(d)) underflows to -inf at d = -104 in float32; log_sigmoid does not.
    losses = -(1 - label_smoothing) * jax.nn.log_sigmoid(d) - label_smoothing * jax.nn.log_sigmoid(-d)
    losses = losses + centring * jnp.square(chosen + rejected)
    return PairLoss(
        loss=masked_mean(losses, mask),
        accuracy=masked_mean(lead > 0, mask),
        margin=jax.lax.stop_gradient(masked_mean(lead, mask)),
        reward=jax.lax.stop_gradient(masked_mean((chosen + rejected) / 2, mask)),
    )
