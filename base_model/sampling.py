"""Sampling on the device: the prompts in one pass, then a loop until every row has ended."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from base_model.attention import MASKED
from base_model.batch import Batch
from base_model.decoder import Cache, empty_cache
from base_model.tokenizer import PAD
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: a reply's length in tokens, its end of turn included.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: only the k most likely tokens; 0 for all.
        top_p: only the most likely tokens that together have this probability (Holtzman et al. 2019); 1 for all.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not self.temperature >= 0:
            raise BadInput(f"temperature must be 0 or above, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise BadInput(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise BadInput(f"top_k must be 0 (off) or above, not {self.top_k}")


class Vocabulary(NamedTuple):
    """The ids that a sampler must know: the one that ends a reply, and those that no reply contains."""

    end_of_turn: int
    never_sampled: tuple[int, ...]


class Samples(NamedTuple):
    """Replies, [prompts * copies, max_new_tokens], the copies of a prompt beside one another.

    Attributes:
        tokens: ids, PAD after the end.
        mask: true up to and including the end of turn.
        log_probs: of each token under softmax(logits / temperature), before top-k and top-p; 0 after the end.
    """

    tokens: Int[Array, "N R"]
    mask: Bool[Array, "N R"]
    log_probs: Float[Array, "N R"]


def policy_logits(logits: Float[Array, "... V"], vocabulary: Vocabulary, temperature: float) -> Float[Array, "... V"]:
    """Logits of the distribution that replies are drawn from; sampler and trainer share it: their ratios start at 1."""
    return suppress(logits, vocabulary.never_sampled) / temperature


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


def choose(logits: Float[Array, "B V"], keys: Key[Array, " B"], config: SamplingConfig) -> Int[Array, " B"]:
    """Draws one token a row from logits that are divided by the temperature already; each row has its own key."""
    if config.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    return draw_top_p(logits, keys, config.top_p) if config.top_p < 1 else draw(logits, keys)


@partial(jax.jit, static_argnames=("structure", "vocabulary", "config", "copies"))
def sample(
    structure: nnx.GraphDef,
    params: Any,
    prompts: Batch,
    keys: Key[Array, " N"],
    *,
    vocabulary: Vocabulary,
    config: SamplingConfig,
    copies: int = 1,
) -> Samples:
    """Draws `copies` replies to each prompt; a prompt is read once for all of its copies.

    Args:
        structure: of a Decoder.
        params: its parameters.
        prompts: left-padded, P tokens wide.
        keys: one a reply (prompts * copies), so that a reply does not depend on which others share its batch.
        vocabulary: see Vocabulary.
        config: how tokens are chosen.
        copies: replies a prompt.
    """
    decoder = nnx.merge(structure, params)
    batch, width = prompts.tokens.shape
    cache = empty_cache(decoder.config, batch, width + config.max_new_tokens)
    hidden, cache = decoder(prompts.tokens, prompts.positions, prompts.segments, prompts.media, cache)
    repeat = lambda x: x if x.ndim == 0 else jnp.repeat(x, copies, 0)  # noqa: E731
    cache = jax.tree.map(repeat, cache)
    hidden, position = repeat(hidden[:, -1:]), repeat(prompts.positions[:, -1:])
    rows, length = batch * copies, config.max_new_tokens
    empty = Samples(
        jnp.full((rows, length), PAD, jnp.int32), jnp.zeros((rows, length), bool), jnp.zeros((rows, length))
    )
    temperature = config.temperature or 1.0

    def unfinished(carry: tuple[Array, Array, Samples, Array, Cache]) -> Array:
        step, running = carry[:2]
        return (step < length) & running.any()

    def extend(carry: tuple[Array, Array, Samples, Array, Cache]) -> tuple[Array, Array, Samples, Array, Cache]:
        step, running, samples, hidden, cache = carry
        logits = policy_logits(decoder.logits(hidden[:, 0]), vocabulary, temperature)
        token = choose(logits, jax.vmap(jax.random.fold_in, (0, None))(keys, step), config)
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], -1)[:, 0]
        samples = Samples(
            samples.tokens.at[:, step].set(jnp.where(running, token, PAD)),
            samples.mask.at[:, step].set(running),
            samples.log_probs.at[:, step].set(jnp.where(running, log_prob, 0)),
        )
        running = running & (token != vocabulary.end_of_turn)
        segment = running.astype(jnp.int32)[:, None]
        hidden, cache = decoder(token[:, None], position + 1 + step, segment, None, cache)
        return step + 1, running, samples, hidden, cache

    start = (jnp.int32(0), jnp.ones(rows, bool), empty, hidden, cache)
    return jax.lax.while_loop(unfinished, extend, start)[2]
