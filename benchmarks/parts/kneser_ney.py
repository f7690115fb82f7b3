"""Interpolated modified Kneser-Ney n-grams (Chen and Goodman 1998) over token ids, as sorted arrays.

    p(w | c) = (max(a(cw) - D(a(cw)), 0) + (D1 N1(c) + D2 N2(c) + D3 N3(c)) p(w | c')) / sum over v of a(cv)

c' is c without its oldest token, Nk(c) how many w follow c with a(cw) = k (3: or more), and before one token comes the
uniform distribution. a is the count for the longest n-grams, and for shorter ones the number of distinct tokens seen
before them. What begins an example has nothing before it, and its occurrences are added. The three discounts of each
order come from its counts of counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from base_model.interleave import Example

# For counts of 1, 2 and 3 or more, where a corpus is too small or too regular to estimate them.
FALLBACK = (0.5, 1.0, 1.5)


class Stream(NamedTuple):
    """Examples one after another.

    Attributes:
        tokens: ids.
        places: of each token in its example.
        learn: whether the token is one to be predicted; never true for the first of an example.
    """

    tokens: Int[np.ndarray, "T"]
    places: Int[np.ndarray, "T"]
    learn: Bool[np.ndarray, "T"]

    @classmethod
    def of(cls, examples: Sequence[Example]) -> "Stream":
        places = np.concatenate([np.arange(len(example)) for example in examples])
        learn = np.concatenate([example.learn for example in examples]) & (places > 0)
        return cls(np.concatenate([example.tokens for example in examples]).astype(np.int64), places, learn)

    def ngrams(self, order: int, base: int) -> tuple[Int[np.ndarray, "N"], Int[np.ndarray, "N"]]:
        """Where n-grams end in a token to be predicted, and those n-grams as numbers, the oldest token first."""
        at = np.flatnonzero(self.learn & (self.places >= order - 1))
        keys = np.zeros(len(at), np.int64)
        for back in range(order - 1, -1, -1):
            keys = keys * base + self.tokens[at - back]
        return at, keys


class Order(NamedTuple):
    """All n-grams of one length.

    Attributes:
        ngrams: as numbers, sorted.
        counts: a of the formula, of each.
        contexts: the n-grams without their last tokens, sorted, each once.
        totals: sum of the counts after each context.
        freed: what the discounts took from them.
        discounts: for counts of 0 (nothing), 1, 2 and 3 or more.
    """

    ngrams: Int[np.ndarray, "N"]
    counts: Int[np.ndarray, "N"]
    contexts: Int[np.ndarray, "M"]
    totals: Int[np.ndarray, "M"]
    freed: Float[np.ndarray, "M"]
    discounts: Float[np.ndarray, "4"]

    @classmethod
    def of(cls, occurrences: Int[np.ndarray, "N"], base: int) -> "Order":
        ngrams, counts = np.unique(occurrences, return_counts=True)
        taken = np.array([0.0, *discounts(counts)])
        contexts, first = np.unique(ngrams // base, return_index=True)
        freed = np.add.reduceat(taken[np.minimum(counts, 3)], first)
        return cls(ngrams, counts, contexts, np.add.reduceat(counts, first), freed, taken)

    def interpolate(
        self, keys: Int[np.ndarray, "N"], shorter: Float[np.ndarray, "N"], base: int
    ) -> Float[np.ndarray, "N"]:
        """Probabilities of the n-grams' last tokens, from those that one token of context less gives."""
        context, known = find(self.contexts, keys // base)
        ngram, seen = find(self.ngrams, keys)
        counts = np.where(seen, self.counts[ngram], 0)
        left = counts - self.discounts[np.minimum(counts, 3)]
        return np.where(known, (left + self.freed[context] * shorter) / self.totals[context], shorter)


class KneserNey(NamedTuple):
    """An n-gram model: `orders` from one token up."""

    orders: tuple[Order, ...]
    vocab_size: int

    @classmethod
    def train(cls, examples: Sequence[Example], *, order: int, vocab_size: int) -> "KneserNey":
        """Counts the n-grams that end in a learned token, with whatever stands before it in its example.

        Raises:
            ValueError: n-grams of this order do not fit in 63 bits, or no example is as long.
        """
        if vocab_size**order > 2**63:
            raise ValueError(f"{order}-grams over {vocab_size} ids do not fit in 63 bits; take a lower order")
        stream, orders = Stream.of(examples), []
        for n in range(order, 0, -1):
            at, keys = stream.ngrams(n, vocab_size)
            if orders:
                begins = keys[stream.places[at] == n - 1]
                keys = np.concatenate([orders[-1].ngrams % vocab_size**n, begins])
            if not len(keys):
                raise ValueError(f"no example has {n} tokens; take a lower order")
            orders.append(Order.of(keys, vocab_size))
        return cls(tuple(reversed(orders)), vocab_size)

    def probabilities(self, examples: Sequence[Example]) -> Float[np.ndarray, "N"]:
        """Of each learned token, in the order of the examples, given those before it in its example."""
        stream = Stream.of(examples)
        found = np.full(len(stream.tokens), 1 / self.vocab_size)
        for n, order in enumerate(self.orders, 1):
            at, keys = stream.ngrams(n, self.vocab_size)
            found[at] = order.interpolate(keys, found[at], self.vocab_size)
        return found[stream.learn]


def discounts(counts: Int[np.ndarray, "N"]) -> tuple[float, ...]:
    """What is taken from counts of 1, 2 and 3 or more: Dk = k - (k + 1) Y n(k+1) / nk, with Y = n1 / (n1 + 2 n2)."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    if not n[1:5].all():
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(float(k - (k + 1) * y * n[k + 1] / n[k]) for k in (1, 2, 3))
    return found if all(0 <= taken <= k for k, taken in enumerate(found, 1)) else FALLBACK


def find(among: Int[np.ndarray, "M"], keys: Int[np.ndarray, "N"]) -> tuple[Int[np.ndarray, "N"], Bool[np.ndarray, "N"]]:
    """Places in a sorted array, and whether the key really stands there."""
    at = np.minimum(np.searchsorted(among, keys), len(among) - 1)
    return at, among[at] == keys
