"""Log-probabilities and entropies of tokens under tempered logits.

The logits at sequence index C - 1 + t (C the padded prompt length) predict response token t: slice before calling.

rlax's `softmax(temperature)` computes the same numbers, and the tests hold these functions against it. It is not called
here because it stays in bfloat16 when the logits are, multiplies by a one-hot of the vocabulary instead of gathering,
and warns at each call that it is going away.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from training.masked import upcast


def token_logprobs(
    logits: Float[Array, "B T V"], tokens: Int[Array, "B T"], *, temperature: float = 1.0
) -> Float[Array, "B T"]:
    """Log pi(token), in float32 or wider.

    logits[token] / tau - logsumexp(logits / tau)

    Args:
      logits: as the model gives them, one row of the vocabulary for each token to be scored.
      tokens: the ids that were sampled.
      temperature: tau > 0. The same for the rollout, the updated policy and the reference, or their ratio is not that
        of the distributions that were sampled from.

    Returns:
      Natural logarithms, padding included: mask before use.

    Raises:
      ValueError: the temperature is not positive.
    """
    logits = _tempered(logits, temperature)
    chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def token_entropy(logits: Float[Array, "B T V"], *, temperature: float = 1.0) -> Float[Array, "B T"]:
    """Entropy of the next-token distribution in nats, in float32 or wider.

    -sum_v p_v log p_v with p = softmax(logits / tau)

    Args:
      logits: as the model gives them; -inf marks a token that is never sampled.
      temperature: tau > 0.

    Returns:
      Entropies in [0, log V], padding included: mask before use.

    Raises:
      ValueError: the temperature is not positive.
    """
    logprobs = jax.nn.log_softmax(_tempered(logits, temperature))
    # 0 * -inf is NaN; a token of probability 0 adds nothing to the sum.
    return -jnp.sum(jnp.exp(logprobs) * jnp.where(jnp.isneginf(logprobs), 0, logprobs), axis=-1)


def _tempered(logits: Float[Array, "B T V"], temperature: float) -> Float[Array, "B T V"]:
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}; take the argmax for greedy decoding")
    return upcast(logits) / temperature
