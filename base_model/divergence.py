"""How far a student's next-token distribution is from a teacher's of which only the likeliest tokens are kept.

All tokens outside those count as one: the divergence of distributions that were made coarser so is never above that of
the whole ones (log-sum inequality; Cover and Thomas 2006, theorem 2.7.1), equals it when every token is kept, and is 0
for a student that equals its teacher. Scaling the kept ones up to a sum of 1 instead has a target that no teacher gave:
it asks for too much confidence (Anshumann et al. 2025, "Sparse Logit Sampling"), and says nothing of what a student
wastes on other tokens. How the rest is spread over its tokens is left to the cross-entropy on the data.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from training.masked import upcast

# A logit that is left out: finite, for infinite ones would make gradients NaN.
_LEFT_OUT = -1e30


def likeliest(logits: Float[Array, "*axes V"], *, top_k: int) -> Int[Array, "*axes K"]:
    """Ids of the `top_k` likeliest tokens (int32), the likeliest first."""
    return jax.lax.top_k(logits, top_k)[1]


def coarse_log_probs(
    logits: Float[Array, "*axes V"], ids: Int[Array, "*axes K"], *, temperature: float
) -> Float[Array, "*axes K+1"]:
    """Log-probabilities of some tokens, and of all others together.

    log p_v = z_v / temperature - log sum_u exp(z_u / temperature); last, log of the sum of p_v over v not in ids

    The rest is summed up, not taken as 1 minus the kept: where that is nearly 0, nothing would be left of its gradient.

    Args:
        logits: z, any float dtype; computed in float32 or wider.
        ids: different tokens.
        temperature: above 1 makes distributions flatter.

    Returns:
        One number more than `ids`; the last is about -1e30 if `ids` are all tokens.
    """
    scaled = upcast(logits) / temperature
    kept = jnp.take_along_axis(scaled, ids, -1)
    others = jnp.put_along_axis(scaled, ids, jnp.asarray(_LEFT_OUT, scaled.dtype), -1, inplace=False)
    rest = jax.nn.logsumexp(others, -1, keepdims=True)
    return jnp.concatenate([kept, rest], -1) - jax.nn.logsumexp(scaled, -1, keepdims=True)


def divergence(teacher: Float[Array, "*axes N"], student: Float[Array, "*axes N"]) -> Float[Array, "*axes"]:
    """Forward Kullback-Leibler divergence of the student from the teacher (Hinton, Vinyals and Dean 2015).

    KL(p || q) = sum_i p_i (log p_i - log q_i)

    Args:
        teacher: log p, any float dtype. Scaled to a sum of 1 first, which rounding to 16 bits takes away.
        student: log q.

    Returns:
        Nats, float32 or wider.
    """
    log_p = jax.nn.log_softmax(upcast(teacher), -1)
    return jnp.sum(jnp.exp(log_p) * (log_p - upcast(student)), -1)


def taught_loss(
    divergence: Float[Array, "*axes"], nll: Float[Array, "*axes"], *, teacher_weight: float, temperature: float
) -> Float[Array, "*axes"]:
    """What a student minimises for each token: a mixture of teacher and data (Hinton, Vinyals and Dean 2015).

    w T^2 KL(p || q) + (1 - w) nll

    Gradients of the divergence shrink with the square of the temperature T; the factor makes up for that.

    Args:
        divergence: of distributions at the temperature, nats.
        nll: negative log-likelihood of the data's token at temperature 1, nats.
        teacher_weight: w, from 0 (the data alone) to 1 (the teacher alone).
        temperature: T.
    """
    return teacher_weight * temperature**2 * divergence + (1 - teacher_weight) * nll
