"""Log-likelihood of tokens under a decoder: the loss of pretraining and SFT, and their held-out figures."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from base_model.batch import Batch, bucket, pack, require_media
from base_model.decoder import Decoder
from base_model.interleave import Example
from base_model.media import room
from training.sharding import row_shards
from training.step import Totals

# Logits that exist at once on a device, 1 GiB of them: those of 1024 tokens if the vocabulary has 262,144.
LOGITS_AT_ONCE = 2**28


def over_logits(
    score: Callable[[Array, Any], Any],
    decoder: Decoder,
    hidden: Float[Array, "B T D"],
    tokens: Any,
    *,
    at_once: int = LOGITS_AT_ONCE,
) -> Any:
    """Maps `score` over the next-token logits of hidden states and what is known of the tokens that came next.

    Where that would be more than `at_once` logits, rows are cut into chunks of tokens, one after another and in the
    backward pass too, which computes the logits again: only those of one chunk exist at a time.

    Args:
        score: takes logits [B, C, V] and `tokens` cut to [B, C, ...], and gives arrays [B, C, ...].
        decoder: whose head gives the logits.
        hidden: final-norm hidden states.
        tokens: a tree of arrays [B, T, ...], one entry for each hidden state: ids, and what else `score` wants.
        at_once: logits of one device.

    Returns:
        What `score` gives, [B, T, ...].
    """
    length, rows = hidden.shape[1], -(-len(hidden) // row_shards(decoder.mesh))
    chunk = max(1, at_once // (rows * decoder.config.vocab_size))
    score_chunk = lambda hidden, tokens: score(decoder.logits(hidden), tokens)  # noqa: E731
    if length <= chunk:
        return score_chunk(hidden, tokens)

    def chunks(x: Array) -> Array:
        x = jnp.pad(x, [(0, -length % chunk if axis == 1 else 0) for axis in range(x.ndim)])
        return jnp.moveaxis(x.reshape(len(x), -1, chunk, *x.shape[2:]), 1, 0)

    parts = jax.tree.map(chunks, (hidden, tokens))
    scores = jax.lax.map(lambda part: jax.checkpoint(score_chunk)(*part), parts)
    whole = lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], -1, *x.shape[3:])[:, :length]  # noqa: E731
    return jax.tree.map(whole, scores)


class TokenScores(NamedTuple):
    """Of each token given those before it in its example; the first column is 0.

    Attributes:
        nll: negative log-likelihood in nats.
        hit: whether the token is the most likely one.
    """

    nll: Float[Array, "B T"]
    hit: Bool[Array, "B T"]


def score_tokens(decoder: Decoder, batch: Batch) -> TokenScores:
    """Scores the tokens of a batch."""
    tokens, segments, positions, _, media = jax.tree.map(jnp.asarray, batch)
    hidden, _ = decoder(tokens, positions, segments, media)
    scores = over_logits(score_logits, decoder, hidden[:, :-1], tokens[:, 1:])
    return TokenScores(*(jnp.pad(x, ((0, 0), (1, 0))) for x in scores))


def score_logits(logits: Float[Array, "B T V"], targets: Int[Array, "B T"]) -> TokenScores:
    """Scores the tokens that came next."""
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    return TokenScores(jax.nn.logsumexp(logits, -1) - chosen, logits.argmax(-1) == targets)


def cross_entropy(structure: nnx.GraphDef, params: Any, batch: Batch) -> Totals:
    """Sum over the tokens to be learned of -log p(token | tokens before it), and how many there are."""
    scores = score_tokens(nnx.merge(structure, params), batch)
    learn = batch.learn.astype(jnp.float32)
    count = learn.sum()
    return {"loss": ((scores.nll * learn).sum(), count), "token_accuracy": ((scores.hit * learn).sum(), count)}


class HeldOut(NamedTuple):
    """Held-out figures of a set of examples.

    Attributes:
        loss: mean negative log-likelihood of the learned tokens, nats a token.
        exact_match: share of examples whose learned tokens are all the most likely ones, which is when greedy decoding
            writes them exactly.
        nll: sum over each example's learned tokens, nats, in the order given.
    """

    loss: float
    exact_match: float
    nll: np.ndarray


@partial(jax.jit, static_argnums=0)
def _score(structure: nnx.GraphDef, params: Any, batch: Batch) -> tuple[Array, Array, Array]:
    scores = score_tokens(nnx.merge(structure, params), batch)
    learn = batch.learn
    return (scores.nll * learn).sum(1), (scores.hit | ~learn).all(1), learn.sum(1)


def held_out(structure: nnx.GraphDef, params: Any, examples: Sequence[Example], *, batch_size: int = 64) -> HeldOut:
    """Scores examples one a row, sorted by length so that little is padded.

    Raises:
        BadInput: when a medium of an example is missing.
    """
    decoder = nnx.merge(structure, params)
    require_media(examples, decoder.soft_tokens, decoder.config)
    order = np.argsort([len(example) for example in examples], kind="stable")
    nll, exact, count = (np.zeros(len(examples)) for _ in range(3))
    # The same room for all, blank where there is nothing: each further shape would be compiled.
    media = room([[example.media] for example in examples])
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        rows = [[examples[i]] for i in chosen] + [[]] * (batch_size - len(chosen))
        longest = max(len(examples[i]) for i in chosen)
        batch = pack(rows, bucket(longest), media)
        nll[chosen], exact[chosen], count[chosen] = (x[: len(chosen)] for x in _score(structure, params, batch))
    return HeldOut(float(nll.sum() / max(count.sum(), 1)), float(exact.mean()), nll)
