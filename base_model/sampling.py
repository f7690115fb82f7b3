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


def keep_top_p(logits: Float[Array, "B V"], p: float) -> Float[Array, "B V"]:
    """Masks all but the smallest set of most likely tokens whose probability reaches p.

    The set is found by bisecting for its least probability, 30 masked sums instead of a sort of the vocabulary.
    """
    probabilities = jax.nn.softmax(logits, -1)

    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds  # the tokens at or above `low` have enough probability, those at or above `high` too little
        middle = (low + high) / 2
        enough = jnp.where(probabilities >= middle[:, None], probabilities, 0).sum(-1) >= p
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    rows = logits.shape[0]
    low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(rows), jnp.ones(rows) * 1.0001))
    return jnp.where(probabilities >= low[:, None], logits, MASKED)


def choose(logits: Float[Array, "B V"], keys: Key[Array, " B"], config: SamplingConfig) -> Int[Array, " B"]:
    """Draws one token a row from logits that are divided by the temperature already; each row has its own key."""
    if config.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = keep_top_p(logits, config.top_p)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


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
    hidden, cache = decoder(prompts.tokens, prompts.positions, prompts.segments, prompts.images, cache)
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
