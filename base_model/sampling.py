"""Sampling on the device: prompts are read, then replies grow by one token at a time until each has ended."""

import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from base_model.batch import Batch
from base_model.cache import Cache
from base_model.decoder import Decoder
from base_model.draws import draw, draw_top_p, keep_top_k, suppress
from base_model.image_codes import OUTSIDE, ImageCodes, drawn_next, drawn_so_far, hold_to
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
    """The ids that a sampler must know.

    Attributes:
        end_of_turn: ends a reply.
        never_sampled: no reply contains them.
        images: codes of pictures, which stand between brackets only; None if there are none.
        stops: end a reply, too.
    """

    end_of_turn: int
    never_sampled: tuple[int, ...]
    images: ImageCodes | None = None
    stops: tuple[int, ...] = ()

    @property
    def ends(self) -> tuple[int, ...]:
        """All ids that end a reply."""
        return (self.end_of_turn, *self.stops)


class Samples(NamedTuple):
    """Replies, [prompts * copies, max_new_tokens], the copies of a prompt beside one another.

    Attributes:
        tokens: ids, PAD after the end.
        mask: true up to and including what ends a reply.
        log_probs: of each token under softmax(logits / temperature), before top-k and top-p; 0 after the end.
    """

    tokens: Int[Array, "N R"]
    mask: Bool[Array, "N R"]
    log_probs: Float[Array, "N R"]


def permitted(
    logits: Float[Array, "... V"], vocabulary: Vocabulary, drawn: Int[Array, "..."], left: Int[Array, "..."]
) -> Float[Array, "... V"]:
    """Logits with the probability of all that may not come next set to 0.

    Sampler and trainer share it: their ratios start at 1.

    Args:
        logits: as the model gives them.
        vocabulary: see Vocabulary.
        drawn: what stands of an open picture, see base_model.image_codes; not looked at if there are no codes.
        left: tokens that the reply has room for, likewise.
    """
    logits = suppress(logits, vocabulary.never_sampled)
    return logits if vocabulary.images is None else hold_to(logits, drawn, left, vocabulary.images)


def choose(logits: Float[Array, "B V"], keys: Key[Array, " B"], config: SamplingConfig) -> Int[Array, " B"]:
    """Draws one token a row from logits that are divided by the temperature already; each row has its own key."""
    if config.temperature == 0:
        return logits.argmax(-1).astype(jnp.int32)
    if config.top_k:
        logits = keep_top_k(logits, config.top_k)
    return draw_top_p(logits, keys, config.top_p) if config.top_p < 1 else draw(logits, keys)


class Prompts(NamedTuple):
    """Prompts that have been read.

    Attributes:
        hidden: final-norm hidden state of the last token.
        positions: of the last token.
        drawn: what stands of an open picture, see base_model.image_codes.
        cache: what the decoder remembers.
    """

    hidden: Float[Array, "B D"]
    positions: Int[Array, " B"]
    drawn: Int[Array, " B"]
    cache: Cache


class Replies(NamedTuple):
    """One a row, behind a prompt.

    Attributes:
        read: the prompt and what has been drawn so far, read.
        keys: from which and the number of a token its random key follows.
        steps: tokens drawn.
        running: false from the end of a reply on, and when there is no room for another token.
        samples: what has been drawn.
    """

    read: Prompts
    keys: Key[Array, " B"]
    steps: Int[Array, " B"]
    running: Bool[Array, " B"]
    samples: Samples


def read_prompts(
    decoder: Decoder, prompts: Batch, vocabulary: Vocabulary, *, slots: int, cuts: tuple[int, ...] = ()
) -> Prompts:
    """Reads left-padded prompts into a cache of `slots` tokens, at once or in the parts that `cuts` make."""
    tokens, positions, segments = (jnp.asarray(x) for x in (prompts.tokens, prompts.positions, prompts.segments))
    whole = (decoder.embed(tokens, prompts.media), tokens, positions, segments)
    ends = [*cuts, tokens.shape[1]]
    parts = [jax.tree.map(lambda x: x[:, first:end], whole) for first, end in itertools.pairwise([0, *ends])]  # noqa: B023
    hidden, cache = decoder.begin(*parts[0], slots=slots)
    last = hidden[:, -1]

    def read_on(cache: Cache, part: tuple[Array, Array, Array, Array]) -> tuple[Cache, Array]:
        x, tokens, positions, segments = part
        hidden, longer = decoder.read(x, tokens, positions, segments, cache)
        assert longer is not None
        return longer, hidden[:, -1]

    # Parts of one width are one loop, compiled once.
    for _, group in itertools.groupby(parts[1:], key=lambda part: part[1].shape[1]):
        cache, states = jax.lax.scan(read_on, cache, jax.tree.map(lambda *x: jnp.stack(x), *group))
        last = states[-1]
    images = vocabulary.images
    # A prompt may end in an open picture.
    drawn = jnp.full(len(tokens), OUTSIDE) if images is None else drawn_so_far(tokens, images)[:, -1]
    return Prompts(last, positions[:, -1], drawn, cache)


def by_row(change: Callable[[Array], Array], read: Prompts) -> Prompts:
    """Changes the rows of prompts, axis 0 of what `change` is given; what all rows share stays."""
    rows = len(read.hidden)

    def changed(x: Array) -> Array:
        return x if x.ndim == 0 else change(of_rows(x, rows)).reshape(-1, *x.shape[1:])

    return jax.tree.map(changed, read)


def of_rows(x: Array, rows: int) -> Array:
    """An array with its rows on axis 0, of which rings have several to a row of the batch on axis 1."""
    return x.reshape(rows, -1, *x.shape[1:])


def opened(read: Prompts, keys: Key[Array, " B"], length: int) -> Replies:
    """Replies of which nothing has been drawn yet."""
    rows = len(read.hidden)
    empty = Samples(
        jnp.full((rows, length), PAD, jnp.int32), jnp.zeros((rows, length), bool), jnp.zeros((rows, length))
    )
    return Replies(read, keys, jnp.zeros(rows, jnp.int32), jnp.ones(rows, bool), empty)


def extended(decoder: Decoder, vocabulary: Vocabulary, config: SamplingConfig, replies: Replies) -> Replies:
    """Draws the next token of every reply that runs, and reads it."""
    (hidden, positions, drawn, cache), keys, steps, running, samples = replies
    logits = permitted(decoder.logits(hidden), vocabulary, drawn, config.max_new_tokens - steps)
    logits = logits / (config.temperature or 1.0)
    token = choose(logits, jax.vmap(jax.random.fold_in)(keys, steps), config)
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], -1)
    here = running[:, None] & (jnp.arange(config.max_new_tokens) == steps[:, None])
    samples = Samples(
        jnp.where(here, token[:, None], samples.tokens),
        samples.mask | here,
        jnp.where(here, log_prob, samples.log_probs),
    )
    steps, positions = steps + 1, positions + 1
    ended = reduce(operator.or_, (token == end for end in vocabulary.ends))
    running = running & ~ended & (steps < config.max_new_tokens)
    hidden, read_on = decoder(token[:, None], positions[:, None], running.astype(jnp.int32)[:, None], None, cache)
    assert read_on is not None
    drawn = drawn if vocabulary.images is None else drawn_next(drawn, token, vocabulary.images)
    return Replies(Prompts(hidden[:, 0], positions, drawn, read_on), keys, steps, running, samples)


@partial(jax.jit, static_argnames=("structure", "vocabulary", "config", "copies", "cuts"))
def sample(
    structure: nnx.GraphDef,
    params: Any,
    prompts: Batch,
    keys: Key[Array, " N"],
    *,
    vocabulary: Vocabulary,
    config: SamplingConfig,
    copies: int = 1,
    cuts: tuple[int, ...] = (),
) -> Samples:
    """Draws `copies` replies to each prompt, all at the same time; a prompt is read once for all of its copies.

    Args:
        structure: of a Decoder.
        params: its parameters.
        prompts: left-padded, P tokens wide.
        keys: one a reply (prompts * copies), so that a reply does not depend on which others share its batch.
        vocabulary: see Vocabulary.
        config: how tokens are chosen.
        copies: replies a prompt.
        cuts: where long prompts are cut into parts, see cuts_of.
    """
    decoder = nnx.merge(structure, params)
    read = read_prompts(
        decoder, prompts, vocabulary, slots=prompts.tokens.shape[1] + config.max_new_tokens, cuts=cuts
    )
    replies = opened(by_row(lambda x: jnp.repeat(x, copies, 0), read), keys, config.max_new_tokens)
    extend = partial(extended, decoder, vocabulary, config)
    return jax.lax.while_loop(lambda replies: replies.running.any(), extend, replies).samples
