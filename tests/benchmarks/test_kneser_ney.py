"""Modified Kneser-Ney against dicts that follow the formula word by word."""

import random
from collections import Counter, defaultdict

import numpy as np
import pytest

from base_model.interleave import Example
from benchmarks.parts.kneser_ney import FALLBACK, KneserNey, discounts

VOCABULARY = 14


def examples(count=150, seed=0):
    """Chains in which few tokens are likely next; some start in the middle, some tokens are only read."""
    rng = np.random.default_rng(seed)
    next_one = rng.dirichlet(np.full(VOCABULARY, 0.25), VOCABULARY)
    rows = []
    for length in rng.integers(1, 16, count):
        tokens = [0 if rng.random() < 0.7 else int(rng.integers(VOCABULARY))]
        while len(tokens) < length:
            tokens.append(int(rng.choice(VOCABULARY, p=next_one[tokens[-1]])))
        rows.append(Example(tokens=np.array(tokens, np.int32), learn=rng.random(length) < 0.9))
    return rows


class Naive:
    """The same model, n-gram by n-gram."""

    def __init__(self, rows, order):
        ends = [(row.tokens.tolist(), end) for row in rows for end in range(1, len(row)) if row.learn[end]]
        self.counts, self.discounts = {}, {}
        for n in range(1, order + 1):
            occurs, preceded, begins = Counter(), defaultdict(set), Counter()
            for tokens, end in ends:
                if (start := end - n + 1) >= 0:
                    ngram = tuple(tokens[start : end + 1])
                    occurs[ngram] += 1
                    if start:
                        preceded[ngram].add(tokens[start - 1])
                    else:
                        begins[ngram] += 1
            if n < order:
                occurs = {ngram: len(preceded[ngram]) + begins[ngram] for ngram in occurs}
            self.counts[n] = occurs
            self.discounts[n] = [0.0, *self.chen_goodman(occurs.values())]

    @staticmethod
    def chen_goodman(counts):
        n1, n2, n3, n4 = (sum(count == k for count in counts) for k in (1, 2, 3, 4))
        if not (n1 and n2 and n3 and n4):
            return FALLBACK
        y = n1 / (n1 + 2 * n2)
        return 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3

    def probability(self, context, token):
        n, counts = len(context) + 1, self.counts[len(context) + 1]
        shorter = self.probability(context[1:], token) if context else 1 / VOCABULARY
        follow = {ngram[-1]: count for ngram, count in counts.items() if ngram[:-1] == context}
        if not follow:
            return shorter
        taken = {other: self.discounts[n][min(count, 3)] for other, count in follow.items()}
        own = follow.get(token, 0) - taken.get(token, 0)
        return (own + sum(taken.values()) * shorter) / sum(follow.values())


def asked(context):
    """Every token of the vocabulary after one context, as examples in which only that token is learned."""
    learn = np.arange(len(context) + 1) == len(context)
    return [Example(tokens=np.array([*context, token], np.int32), learn=learn) for token in range(VOCABULARY)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_agrees_with_the_formula_on_other_examples(order):
    train, held_out = examples(), examples(25, seed=1)
    naive, model = Naive(train, order), KneserNey.train(train, order=order, vocab_size=VOCABULARY)
    wanted = []
    for row in held_out:
        tokens = row.tokens.tolist()
        ends = [end for end in range(1, len(tokens)) if row.learn[end]]
        wanted += [naive.probability(tuple(tokens[max(0, end - order + 1) : end]), tokens[end]) for end in ends]
    assert len(wanted) > 100
    if order > 2:  # or the corpus would say nothing about discounts
        assert tuple(naive.discounts[order][1:]) != FALLBACK
    np.testing.assert_allclose(model.probabilities(held_out), wanted, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_probabilities_after_any_context_sum_to_one(order):
    model = KneserNey.train(examples(), order=order, vocab_size=VOCABULARY)
    rng = np.random.default_rng(2)
    for length in rng.integers(1, 9, 40):
        after = model.probabilities(asked(rng.integers(0, VOCABULARY, length)))
        assert after.shape == (VOCABULARY,) and after.min() > 0
        assert after.sum() == pytest.approx(1, abs=1e-12)


def test_discounts_are_those_of_counts_of_counts():
    counts = np.repeat([1, 2, 3, 4, 9], [40, 16, 8, 5, 3])
    assert discounts(counts) == pytest.approx((5 / 9, 2 - 5 / 6, 3 - 4 * 5 / 9 * 5 / 8))
    assert discounts(np.array([1, 1, 2, 4])) == FALLBACK


def test_a_token_that_follows_many_is_likelier_in_new_places_than_one_that_follows_one():
    # Token 1 occurs ten times, always after 2; token 3 four times, after four different tokens.
    pairs = [(2, 1)] * 10 + [(4, 3), (5, 3), (6, 3), (7, 3)] + [(8, 9), (8, 10), (8, 10), (9, 11)]
    rows = [Example(tokens=np.array([0, 0, *pair], np.int32), learn=np.arange(4) == 3) for pair in pairs]
    model = KneserNey.train(rows, order=2, vocab_size=VOCABULARY)
    after = model.probabilities(asked([13]))
    assert after[3] > 2 * after[1]


def test_too_long_ngrams_are_refused():
    with pytest.raises(ValueError, match="63 bits"):
        KneserNey.train(examples(), order=6, vocab_size=4096)
    with pytest.raises(ValueError, match="no example has 17 tokens"):
        KneserNey.train(examples(), order=17, vocab_size=4)


def sentences(count=600):
    """Ids 1 to 12 between 0, where a sentence begins, and 13, where it ends; always the same."""
    choose, rows = random.Random(0), []
    for _ in range(count):
        tokens = [0, 1 + int(12 * choose.random() ** 2)]
        while choose.random() < 0.85:
            near = int(5 * choose.random() ** 2)
            tokens.append(1 + (3 * tokens[-1] + 5 * tokens[-2] + near) % 12)
        rows.append(Example(tokens=np.array([*tokens, 13], np.int32), learn=np.ones(len(tokens) + 1, bool)))
    return rows


# KenLM (lmplz -o 3 --discount_fallback): log10 of the last sentences, each with its end.
KENLM = (-18.416462, -3.810157, -7.90395, -3.171902, -10.843513)


def test_agrees_with_another_implementation():
    rows = sentences()
    model = KneserNey.train(rows[:-5], order=3, vocab_size=VOCABULARY)
    found = [np.log10(model.probabilities([row])).sum() for row in rows[-5:]]
    np.testing.assert_allclose(found, KENLM, atol=1e-5)
