"""What a model makes of long contexts: values looked up by key at a depth, and its loss by position.

Key-value retrieval as in "Lost in the Middle" (Liu et al. 2023): lines of random keys and values, then a question for
one of them. The answer is counted when greedy decoding would write exactly the value.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from base_model.batch import Batch, bucket, pack
from base_model.checkpoint import LanguageModel, structure_of
from base_model.interleave import Example
from base_model.likelihood import held_out, score_tokens
from training.errors import BadInput

# Tokens that are read at once; longer rows are read alone.
TOKENS = 16_384


class Retrieved(NamedTuple):
    """How often a model found a value.

    Attributes:
        length: tokens of the longest row.
        depth: how far down the line stood, 0 for the first and 1 for the last.
        found: rows whose value it would write.
        rows: how many there were.
    """

    length: int
    depth: float
    found: int
    rows: int


class PositionLoss(NamedTuple):
    """Mean loss of tokens at some positions: `first` and those up to, but without, `end`; nats a token."""

    first: int
    end: int
    loss: float
    tokens: int


def lines_and_question(rng: np.random.Generator, count: int, depth: float) -> tuple[str, str]:
    """A user's turn with `count` keys and values and a question for the one at a depth, and the answer."""
    keys, values = (rng.choice(90_000, count, replace=False) + 10_000 for _ in range(2))
    asked = round(depth * (count - 1))
    lines = "\n".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
    return f"{lines}\nWhich value belongs to {keys[asked]}?", str(values[asked])


def retrieval(
    model: LanguageModel,
    pose: Callable[[str, str], Example],
    *,
    length: int,
    depths: Sequence[float],
    rows: int,
    seed: int = 0,
) -> list[Retrieved]:
    """Asks for values at each depth of contexts that fill a length as well as whole lines can.

    Args:
        model: a decoder.
        pose: makes an example, of which the reply is learned, of a user's turn and a reply.
        length: tokens of a row at most, the answer among them.
        depths: from 0 to 1.
        rows: of each depth, at most 90,000 lines each.
        seed: of keys and values.

    Raises:
        BadInput: when the length does not hold two lines, or is beyond the model's context.
    """
    if length > model.config.max_context:
        raise BadInput(f"a length of {length} is beyond the model's context ({model.config.max_context})")
    size = lambda count: len(pose(*lines_and_question(np.random.default_rng(seed), count, 0)))  # noqa: E731
    # Keys and values have five digits each, so all lines are about equally long; a twentieth is left for what differs.
    per_line = (size(12) - size(2)) / 10
    count = int((0.95 * length - size(2)) / per_line) + 2
    if count < 2 or size(2) > 0.95 * length:
        raise BadInput(f"a length of {length} tokens does not hold two lines and a question, which take {size(2)}")
    structure, found = structure_of(model.config, model.tokenizer), []
    for depth in depths:
        rng = np.random.default_rng((seed, round(1000 * depth)))
        examples = [pose(*lines_and_question(rng, min(count, 90_000), depth)) for _ in range(rows)]
        longest = max(map(len, examples))
        if longest > length:
            raise BadInput(f"{count} lines took {longest} tokens, more than {length}; ask for another length")
        at_once = max(1, min(rows, TOKENS // bucket(longest)))
        share = held_out(structure, model.params, examples, batch_size=at_once).exact_match
        found.append(Retrieved(longest, depth, round(share * rows), rows))
    return found


def loss_by_position(
    model: LanguageModel, examples: Sequence[Example], *, length: int, parts: int = 16
) -> list[PositionLoss]:
    """Mean loss of tokens by their position, in parts of equal length; the first token of a row has none.

    Args:
        model: a decoder.
        examples: long texts; what is beyond `length` is cut off.
        length: tokens of a row.
        parts: how many.
    """
    structure = structure_of(model.config, model.tokenizer)
    nll, counted = np.zeros(length), np.zeros(length)
    at_once = max(1, min(len(examples), TOKENS // length))
    for first in range(0, len(examples), at_once):
        rows = [[_cut(example, length)] for example in examples[first : first + at_once]]
        batch = pack([*rows, *[[]] * (at_once - len(rows))], length)
        known = (batch.segments > 0) & (batch.positions > 0)
        nll += np.where(known, _nll(structure, model.params, batch), 0).sum(0)
        counted += known.sum(0)
    edges = np.linspace(0, length, parts + 1).astype(int)
    places = [(int(a), int(b), slice(a, b)) for a, b in zip(edges[:-1], edges[1:], strict=True) if counted[a:b].any()]
    return [PositionLoss(a, b, float(nll[s].sum() / counted[s].sum()), int(counted[s].sum())) for a, b, s in places]


def _cut(example: Example, length: int) -> Example:
    return Example(tokens=example.tokens[:length], learn=example.learn[:length])


@partial(jax.jit, static_argnums=0)
def _nll(structure: nnx.GraphDef, params: Any, batch: Batch) -> Float[Array, "B T"]:
    return score_tokens(nnx.merge(structure, params), jax.tree.map(jnp.asarray, batch)).nll
