"""Which tokens may stand where in a reply that draws: codes between the brackets of a picture, and only there.

Everything follows from the tokens before: sampler and trainer ask the same functions, and so agree on probabilities.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from base_model.attention import MASKED

OUTSIDE = -1


class ImageCodes(NamedTuple):
    """Where the codes of pictures stand in a vocabulary.

    Attributes:
        begin: the id of the bracket before a picture.
        end: the id of the bracket behind it.
        first: the id of code 0.
        count: how many codes there are; they are the last ids of the vocabulary's text and codes.
        length: codes of one picture.
    """

    begin: int
    end: int
    first: int
    count: int
    length: int


def drawn_so_far(tokens: Int[Array, "B T"], codes: ImageCodes) -> Int[Array, "B T"]:
    """How many tokens stand behind the bracket of the picture that is open after each token, or OUTSIDE."""
    number = jnp.arange(tokens.shape[1])
    last = lambda token: jax.lax.cummax(jnp.where(tokens == token, number, -1), axis=1)  # noqa: E731
    opened = last(codes.begin)
    return jnp.where(opened > last(codes.end), number - opened, OUTSIDE)


def drawn_next(drawn: Int[Array, " B"], token: Int[Array, " B"], codes: ImageCodes) -> Int[Array, " B"]:
    """The same after one more token of each row."""
    inside = jnp.where((drawn == OUTSIDE) | (token == codes.end), OUTSIDE, drawn + 1)
    return jnp.where(token == codes.begin, 0, inside)


def allowed(drawn: Int[Array, "..."], left: Int[Array, "..."], codes: ImageCodes, size: int) -> Bool[Array, "... V"]:
    """Which ids may come next.

    Inside a picture: a code, and when there are enough of them the end. Outside: everything but codes and the end, and
    the beginning only where a picture, its end and an end of turn still fit.

    Args:
        drawn: see drawn_so_far, of the token before.
        left: tokens that the reply has room for, the next one among them.
        codes: where they stand.
        size: of the vocabulary.
    """
    ids, drawn, left = jnp.arange(size), drawn[..., None], left[..., None]
    is_code = (ids >= codes.first) & (ids < codes.first + codes.count)
    inside = jnp.where(drawn < codes.length, is_code, ids == codes.end)
    fits = (ids != codes.begin) | (left >= codes.length + 3)
    return jnp.where(drawn == OUTSIDE, ~is_code & (ids != codes.end) & fits, inside)


def hold_to(
    logits: Float[Array, "... V"], drawn: Int[Array, "..."], left: Int[Array, "..."], codes: ImageCodes
) -> Float[Array, "... V"]:
    """Logits with the probability of every id that may not come next set to 0."""
    return jnp.where(allowed(drawn, left, codes, logits.shape[-1]), logits, MASKED)
