"""Draws from a distribution over the vocabulary, one id a row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from base_model.attention import MASKED


def suppress(logits: Float[Array, "... V"], ids: tuple[int, ...]) -> Float[Array, "... V"]:
    """Logits with the probability of some ids set to 0."""
    return logits.at[..., jnp.array(ids, jnp.int32)].set(MASKED)


def keep_top_k(logits: Float[Array, "B V"], k: int) -> Float[Array, "B V"]:
    """Masks all but the k largest logits of each row (more where they tie)."""
    return jnp.where(logits >= jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][:, -1:], logits, MASKED)


def draw(logits: Float[Array, "B V"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
    """Draws one id a row from softmax(logits) by inverting its distribution function.

    One random number a row instead of the vocabulary's worth that the Gumbel trick takes: the number picks a block of
    128 ids by the blocks' masses, then an id in the block. Masked ids have mass 0 and are never drawn.
    """
    rows, size = logits.shape
    weights = jnp.exp(logits - logits.max(-1, keepdims=True))
    blocks = jnp.pad(weights, ((0, 0), (0, -size % 128))).reshape(rows, -1, 128)
    uniform = jax.vmap(jax.random.uniform)(keys)
    block, rest = _invert(blocks.sum(-1), uniform)
    inside = jnp.take_along_axis(blocks, block[:, None, None], 1)[:, 0]
    return (128 * block + _invert(inside, rest)[0]).astype(jnp.int32)


def draw_top_p(logits: Float[Array, "B V"], keys: Key[Array, " B"], p: float) -> Int[Array, " B"]:
    """Draws one id a row from the smallest set of most likely ids whose probability reaches p, by rejection.

    A draw from the whole distribution is outside that set with probability at most 1 - p, and whether it is takes one
    masked sum, where finding the set itself would take a sort of the vocabulary. Rejected rows draw again.
    """
    probabilities = jax.nn.softmax(logits, -1)

    def attempt(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        number, ids, accepted = carry
        again = draw(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, number))
        ids = jnp.where(accepted, ids, again)
        return number + 1, ids, accepted | in_nucleus(probabilities, ids, p)

    # The most likely id is always in the set: it stands in for a draw that would never end (logits of NaN).
    start = jnp.int32(0), logits.argmax(-1).astype(jnp.int32), jnp.zeros(logits.shape[0], bool)
    _, ids, accepted = jax.lax.while_loop(lambda carry: (carry[0] < 1000) & ~carry[2].all(), attempt, start)
    return jnp.where(accepted, ids, start[1])


def in_nucleus(probabilities: Float[Array, "B V"], ids: Int[Array, " B"], p: float) -> Bool[Array, " B"]:
    """Whether the more likely ids together stay below p, so that the smallest set that reaches p has this one in it."""
    own = jnp.take_along_axis(probabilities, ids[:, None], -1)
    return jnp.where(probabilities > own, probabilities, 0).sum(-1) < p


def _invert(mass: Float[Array, "B N"], uniform: Float[Array, " B"]) -> tuple[Int[Array, " B"], Float[Array, " B"]]:
    """The index at which the cumulated mass passes `uniform` of the whole, and how far into its own mass that is."""
    # A cumulated sum is rounded at every place and may grow where there is no mass: such places are left out.
    total = jnp.where(mass > 0, jnp.cumsum(mass, -1), 0)
    # Kept below the end, where rounding could step past the last index that has any mass.
    target = jnp.minimum(uniform, 1 - 1e-6) * total.max(-1)
    index = (total > target[:, None]).argmax(-1)
    own = jnp.take_along_axis(mass, index[:, None], 1)[:, 0]
    before = jnp.take_along_axis(total, index[:, None], 1)[:, 0] - own
    return index, jnp.clip((target - before) / own, 0, 1)
