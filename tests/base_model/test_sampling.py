from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_world import one_layer

from base_model.attention import MASKED
from base_model.batch import cuts_of, pack, pad_left
from base_model.draws import _invert, draw, in_nucleus, keep_top_k, suppress
from base_model.generate import generate, reply_keys, vocabulary_of
from base_model.pool import Waiting, draw_all
from base_model.sampling import SamplingConfig, Vocabulary, choose, read_prompts, sample
from training.errors import BadInput

WIDTH = 32
CONFIG = SamplingConfig(max_new_tokens=12, temperature=0.7)


@pytest.fixture(scope="module")
def prompts(make_example):
    """Four of different length, one with a picture and one with two."""
    return [
        make_example("what colour is this", pictures=[0]),
        make_example("hello"),
        make_example("?", pictures=[1, 2]),
        make_example("where is the cat and how are you today"),
    ]


@pytest.fixture(scope="module")
def drawn(structure, tiny_model, prompts):
    """Two replies to each prompt, and the function that draws others of the same shapes."""
    batch, usual = pad_left(prompts, WIDTH), vocabulary_of(tiny_model)

    def draw(seed=0, batch=batch, params=tiny_model.params, vocabulary=usual, config=CONFIG):
        keys = reply_keys(jax.random.key(seed), np.arange(len(batch.tokens), dtype=np.uint32), 2)
        return jax.tree.map(
            np.asarray, sample(structure, params, batch, keys, vocabulary=vocabulary, config=config, copies=2)
        )

    return draw(), draw


@partial(jax.jit, static_argnums=(0, 4, 5))
def teacher_forced(structure, params, batch, replies, vocabulary, temperature):
    """log pi of every token of the rows of a batch, by a forward pass without a cache."""
    decoder = nnx.merge(structure, params)
    tokens, segments, positions, _, media = batch
    hidden, _ = decoder(tokens, positions, segments, media)
    return jax.nn.log_softmax(suppress(decoder.logits(hidden), vocabulary.never_sampled) / temperature)


def with_replies(prompts, samples):
    """Right-padded rows of prompts and their replies, and where each reply starts."""
    rows, starts = [], []
    for index, (tokens, mask) in enumerate(zip(samples.tokens, samples.mask, strict=True)):
        prompt = prompts[index // 2]
        joined = np.concatenate([prompt.tokens, tokens[mask]])
        rows.append([replace(prompt, tokens=joined, learn=np.zeros(len(joined), bool))])
        starts.append(len(prompt))
    return pack(rows, 48), starts


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, temperature=0.0)], ids=["drawn", "greedy"])
def test_log_probs_are_those_of_a_teacher_forced_forward(structure, tiny_model, prompts, drawn, config):
    samples, vocabulary = drawn[1](config=config), vocabulary_of(tiny_model)
    batch, starts = with_replies(prompts, samples)
    expected = teacher_forced(structure, tiny_model.params, batch, None, vocabulary, config.temperature or 1.0)
    for row, start in enumerate(starts):
        kept = samples.tokens[row][samples.mask[row]]
        before = np.asarray(expected[row, start - 1 : start - 1 + len(kept)])
        np.testing.assert_allclose(samples.log_probs[row, : len(kept)], before[np.arange(len(kept)), kept], atol=1e-5)
        if config.temperature == 0:
            np.testing.assert_array_equal(kept, before.argmax(-1))


def test_what_follows_the_end_of_a_turn_is_empty(drawn, tiny_model):
    samples, draw = drawn
    vocabulary = vocabulary_of(tiny_model)
    # What the first row happened to draw third is made the end of a turn, what the second drew fourth another end.
    ends = int(samples.tokens[0, 2]), int(samples.tokens[1, 3])
    again = draw(vocabulary=vocabulary._replace(end_of_turn=ends[0], stops=ends[1:]))
    for row, tokens in enumerate(samples.tokens):
        places = np.flatnonzero(np.isin(tokens, ends))
        length = places[0] + 1 if len(places) else len(tokens)
        assert again.tokens[row].tolist() == [*tokens[:length], *[0] * (len(tokens) - length)]
        np.testing.assert_array_equal(again.mask[row], np.arange(len(tokens)) < length)
        np.testing.assert_allclose(again.log_probs[row, :length], samples.log_probs[row, :length], atol=1e-5)
        assert not again.log_probs[row, length:].any()
    assert again.mask[0].sum() <= 3 and again.mask[1].sum() <= 4


def test_what_no_reply_contains_is_never_drawn(drawn, tiny_model):
    # A model that wants nothing else: the head is tied, so these ids get the longest embeddings.
    never = list(tiny_model.tokenizer.never_sampled)
    rng = np.random.default_rng(0)
    params = dict(tiny_model.params)
    params["embedding"] = params["embedding"].at[jnp.array(never)].set(3 * rng.normal(size=(len(never), 32)))
    for seed in range(3):
        samples = drawn[1](seed=seed, params=params)
        assert not np.isin(samples.tokens[samples.mask], never).any()
        assert np.isfinite(samples.log_probs).all()


def test_a_seed_gives_the_same_and_another_seed_gives_others(drawn):
    samples, draw = drawn
    np.testing.assert_array_equal(draw().tokens, samples.tokens)
    assert (draw(seed=1).tokens != samples.tokens).any(1).all()
    assert (samples.tokens[::2] != samples.tokens[1::2]).any(1).all()  # copies differ


def test_a_reply_does_not_depend_on_its_company(structure, tiny_model, prompts, drawn, room_for):
    samples, draw = drawn
    swapped = pad_left([prompts[0], prompts[3], prompts[3], prompts[1]], WIDTH, room_for(2))
    again = draw(batch=swapped)
    np.testing.assert_array_equal(again.tokens[:2], samples.tokens[:2])
    np.testing.assert_allclose(again.log_probs[:2], samples.log_probs[:2], atol=1e-5)


@given(seed=st.integers(0, 2**32), k=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_top_k_equals_sorting(seed, k):
    logits = np.random.default_rng(seed).normal(size=(3, 30)).astype(np.float32)
    kept = np.asarray(keep_top_k(jnp.array(logits), k)) > MASKED
    order = np.argsort(-logits, -1)
    for row in range(3):
        assert set(np.flatnonzero(kept[row])) == set(order[row, :k])


@given(seed=st.integers(0, 2**32), p=st.floats(0.01, 0.999), spread=st.floats(0.1, 8))
@settings(max_examples=50, deadline=None)
def test_the_nucleus_equals_sorting(seed, p, spread):
    logits = (spread * np.random.default_rng(seed).normal(size=30)).astype(np.float32)
    probabilities = np.exp(logits - logits.max(), dtype=np.float64)
    probabilities /= probabilities.sum()
    each = jnp.tile(jnp.asarray(probabilities, jnp.float32), (30, 1))
    kept = in_nucleus(each, jnp.arange(30), p)
    order = np.argsort(-probabilities)
    total = np.cumsum(probabilities[order])
    needed = int(np.searchsorted(total, p)) + 1
    if np.abs(total - p).min() > 1e-5:  # else rounding decides
        assert set(np.flatnonzero(kept)) == set(order[:needed])


def test_the_nucleus_of_equal_and_of_certain_logits():
    assert in_nucleus(jnp.full((4, 4), 0.25), jnp.arange(4), 0.5).all()  # ties stay together
    certain = jax.nn.softmax(jnp.tile(jnp.array([0.0, 50.0, 0.0, 0.0]), (4, 1)))
    assert np.flatnonzero(in_nucleus(certain, jnp.arange(4), 0.999)).tolist() == [1]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_the_inverted_distribution_never_gives_what_has_no_mass(seed):
    rng = np.random.default_rng(seed)
    mass = rng.exponential(size=64).astype(np.float32) ** 3 * (rng.random(64) < 0.5)
    mass[rng.integers(64)] = 1
    edges = np.cumsum(mass) / mass.sum()
    uniform = np.concatenate([[0], edges, np.nextafter(edges, 0), np.nextafter(edges, 2), [1]]).clip(0, 1)
    tiled = jnp.tile(jnp.asarray(mass, jnp.float32), (len(uniform), 1))
    index, rest = (np.asarray(x) for x in jitted_invert(tiled, jnp.asarray(uniform, jnp.float32)))
    assert (mass[index] > 0).all()
    assert ((rest >= 0) & (rest <= 1)).all()


jitted_invert = jax.jit(lambda mass, uniform: _invert(mass, uniform))


def test_a_draw_ends_even_if_no_logit_is_a_number():
    drawn = choose(jnp.full((2, 5), jnp.nan), jax.random.split(jax.random.key(0), 2), SamplingConfig(top_p=0.5))
    assert drawn.shape == (2,)


def test_draws_over_several_blocks_follow_the_distribution():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=300).astype(np.float32) * 2
    logits[rng.choice(300, 100, replace=False)] = MASKED
    keys = jax.random.split(jax.random.key(1), 20_000)
    ids = np.asarray(jax.jit(draw)(jnp.tile(logits, (20_000, 1)), keys))
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    assert (probabilities[ids] > 0).all()
    share = np.bincount(ids, minlength=300) / 20_000
    # Five standard errors of each share, and a term for the rare ones.
    assert (np.abs(share - probabilities) < 5 * np.sqrt(probabilities / 20_000) + 2e-4).all()


def test_draws_follow_the_distribution():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    keys = jax.random.split(jax.random.key(0), 4000)
    logits = jnp.tile(jnp.log(jnp.asarray(probabilities, jnp.float32)), (4000, 1))
    share = np.bincount(choose(logits, keys, SamplingConfig()), minlength=4) / 4000
    np.testing.assert_allclose(share, probabilities, atol=0.03)
    share = np.bincount(choose(logits, keys, SamplingConfig(top_k=2)), minlength=4) / 4000
    np.testing.assert_allclose(share, [0.625, 0.375, 0, 0], atol=0.03)
    share = np.bincount(choose(logits, keys, SamplingConfig(top_p=0.9)), minlength=4) / 4000
    np.testing.assert_allclose(share, probabilities[:3].tolist() / probabilities[:3].sum() @ np.eye(3, 4), atol=0.03)


def test_suppressed_ids_have_no_probability():
    probabilities = jax.nn.softmax(suppress(jnp.ones((2, 5)), (0, 3)))
    np.testing.assert_allclose(probabilities, [[0, 1 / 3, 1 / 3, 0, 1 / 3]] * 2, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
    ],
    ids=str,
)
def test_options_out_of_range_are_named(wrong):
    with pytest.raises(BadInput, match=next(iter(wrong))):
        SamplingConfig(**wrong)


def test_generate_gives_copies_of_each_prompt_in_order_whatever_shares_a_batch(tiny_model, prompts, monkeypatch):
    tiny_model = one_layer(tiny_model)
    config, answered = replace(CONFIG, max_new_tokens=6), []
    once = generate(tiny_model, prompts, config, copies=2, seed=3, rows=8, advance=answered.append)
    assert [len(replies) for replies in once] == [2] * 4 and sum(answered) == 4
    assert all(isinstance(reply, str) for replies in once for reply in replies)
    assert once[0][0] != once[0][1]
    assert generate(tiny_model, prompts, config, copies=2, seed=4, rows=8) != once
    seen = []

    def read(*arguments, cuts, **options):
        seen.append(cuts)
        return read_prompts(*arguments, cuts=cuts, **options)

    # Nor does it matter in how many parts a prompt is read; long ones are read in several.
    monkeypatch.setattr("base_model.generate.cuts_of", partial(cuts_of, at_once=16))
    monkeypatch.setattr("base_model.pool.read_prompts", read)
    assert generate(tiny_model, prompts, config, copies=2, seed=3, rows=4) == once
    assert seen and all(seen)


def test_replies_that_make_room_for_others_are_those_of_a_batch_drawn_to_its_end(structure, tiny_model, prompts):
    # One of eight ids ends a turn, so that lengths are ragged and rows are given on many times over.
    vocabulary = Vocabulary(end_of_turn=307, never_sampled=tuple(n for n in range(340) if not 300 <= n < 308))
    copies, padded = 5, [*prompts, prompts[0], prompts[2]]
    batch = pad_left(padded, WIDTH)
    keys = reply_keys(jax.random.key(9), np.arange(len(padded), dtype=np.uint32), copies)
    options = {"vocabulary": vocabulary, "config": CONFIG}
    expected = sample(structure, tiny_model.params, batch, keys, copies=copies, **options)
    lengths = np.asarray(expected.mask).sum(1)
    assert len(set(lengths)) > 4
    part = lambda first, count: Waiting(  # noqa: E731
        jax.tree.map(lambda x: x[first : first + 4], batch), keys[first * copies : (first + 4) * copies], count
    )
    parts = [part(0, 20), part(2, 10)]  # the second is not full: its last two prompts only fill it up
    order = [*range(20), *range(10, 20)]
    drawn = list(draw_all(structure, tiny_model.params, iter(parts), rows=9, copies=copies, **options))
    assert sorted(reply.number for reply in drawn) == list(range(30))
    assert [reply.number for reply in drawn] != list(range(30))
    for number, tokens in drawn:
        row = order[number]
        np.testing.assert_array_equal(tokens, np.asarray(expected.tokens)[row, : lengths[row]])


def test_a_prompt_that_leaves_no_room_for_its_reply_is_refused(tiny_model, make_example):
    with pytest.raises(BadInput, match=r"context less max_new_tokens \(4\)"):
        generate(tiny_model, [make_example("hello")], SamplingConfig(max_new_tokens=92))
