"""Log-likelihood of tokens under a decoder: the loss of pretraining and SFT, and their held-out figures."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from base_model.batch import Batch, bucket, pack
from base_model.config import ModelConfig
from base_model.decoder import Decoder
from base_model.interleave import Example
from training.step import Totals


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
    tokens, segments, positions, _, images = (jnp.asarray(x) for x in batch)
    hidden, _ = decoder(tokens, positions, segments, images)
    logits = decoder.logits(hidden[:, :-1])
    targets = tokens[:, 1:]
    chosen = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
    nll = jax.nn.logsumexp(logits, -1) - chosen
    pad = ((0, 0), (1, 0))
    return TokenScores(jnp.pad(nll, pad), jnp.pad(logits.argmax(-1) == targets, pad))


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


def held_out(
    structure: nnx.GraphDef, params: Any, examples: Sequence[Example], config: ModelConfig, *, batch_size: int = 64
) -> HeldOut:
    """Scores examples one a row, sorted by length so that little is padded."""
    order = np.argsort([len(example) for example in examples], kind="stable")
    nll, exact, count = (np.zeros(len(examples)) for _ in range(3))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        rows = [[examples[i]] for i in chosen] + [[]] * (batch_size - len(chosen))
        longest = max(len(examples[i]) for i in chosen)
        images = max((len(examples[i].images) for i in chosen), default=0)
        batch = pack(rows, bucket(longest), config, images=images)
        nll[chosen], exact[chosen], count[chosen] = (x[: len(chosen)] for x in _score(structure, params, batch))
    return HeldOut(float(nll.sum() / max(count.sum(), 1)), float(exact.mean()), nll)
