from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import one_layer

from base_model.batch import bucket, pack
from base_model.checkpoint import structure_of
from base_model.likelihood import TokenScores, cross_entropy, held_out, over_logits, score_tokens


@pytest.fixture(scope="module")
def examples(make_example):
    return [make_example("hello", "fine"), make_example("what", "red", pictures=[0]), make_example("?", "yes no yes")]


@pytest.fixture(scope="module")
def scored(structure, tiny_model, examples):
    """Rows, their logits by the decoder itself, and their scores."""
    batch = pack([[examples[0], examples[1]], [examples[2]]], 48)

    @jax.jit
    def run(params, batch):
        decoder = nnx.merge(structure, params)
        hidden, _ = decoder(batch.tokens, batch.positions, batch.segments, batch.media)
        return decoder.logits(hidden), score_tokens(decoder, batch)

    return batch, *run(tiny_model.params, batch)


def test_scores_equal_a_loop_over_tokens(scored):
    batch, logits, scores = scored
    logits = np.asarray(logits, np.float64)
    for row, place in np.argwhere(batch.learn):
        before = logits[row, place - 1]
        nll = np.log(np.exp(before - before.max()).sum()) + before.max() - before[batch.tokens[row, place]]
        np.testing.assert_allclose(scores.nll[row, place], nll, rtol=1e-4)
        assert scores.hit[row, place] == (before.argmax() == batch.tokens[row, place])
    assert not scores.nll[:, 0].any() and not scores.hit[:, 0].any()


def test_the_loss_counts_what_is_learned_alone(scored, structure, tiny_model):
    batch, _, scores = scored
    loss = jax.jit(partial(cross_entropy, structure))
    totals = loss(tiny_model.params, batch)
    assert totals["loss"][1] == totals["token_accuracy"][1] == batch.learn.sum() > 0
    np.testing.assert_allclose(totals["loss"][0], np.asarray(scores.nll)[batch.learn].sum(), rtol=1e-5)
    nothing = loss(tiny_model.params, batch._replace(learn=np.zeros_like(batch.learn)))
    assert nothing["loss"] == (0, 0)


@pytest.mark.parametrize("chunk", [1, 5, 16])
def test_chunks_of_logits_give_what_all_at_once_do(structure, tiny_model, chunk):
    vocabulary, rng = tiny_model.config.vocab_size, np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(2, 17, tiny_model.config.embed_dim)), jnp.float32)
    tokens = jnp.asarray(rng.integers(0, vocabulary, (2, 17)))
    weight = jnp.asarray(rng.normal(size=(2, 17)), jnp.float32)

    def score(logits, tokens):
        assert logits.shape[1] in (chunk, 17)
        return TokenScores(-jax.nn.log_softmax(logits)[..., 0] + tokens, logits.argmax(-1) == tokens)

    def run(at_once):
        def total(params, hidden):
            scores = over_logits(score, nnx.merge(structure, params), hidden, tokens, at_once=at_once)
            return (scores.nll * weight).sum(), scores

        (_, scores), gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(tiny_model.params, hidden)
        return scores, gradients[0]["embedding"], gradients[1]

    expected, chunked = run(2 * 17 * vocabulary), run(2 * chunk * vocabulary + 1)
    assert chunked[0].nll.shape == (2, 17) and jnp.abs(expected[1]).max() > 0.01
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6, rtol=1e-6)


def test_held_out_figures_are_those_of_single_rows_in_any_batch(structure, tiny_model, examples):
    figures = held_out(structure, tiny_model.params, examples, batch_size=2)
    again = held_out(structure, tiny_model.params, examples[::-1], batch_size=2)
    np.testing.assert_allclose(figures.nll, again.nll[::-1], rtol=1e-5)
    np.testing.assert_allclose(figures.loss, figures.nll.sum() / sum(e.learn.sum() for e in examples), rtol=1e-6)
    assert figures.exact_match == 0


def test_exact_match_is_one_where_every_learned_token_is_the_likeliest(structure, tiny_model, examples, scored):
    from dataclasses import replace

    batch, logits, _ = scored
    example, likeliest = examples[2], np.asarray(logits[1].argmax(-1))
    place = int(np.flatnonzero(batch.learn[1])[0])
    tokens = example.tokens.copy()
    tokens[place] = likeliest[place - 1]
    right = replace(example, tokens=tokens, learn=np.arange(len(tokens)) == place)
    figures = held_out(structure, tiny_model.params, [right, example], batch_size=2)
    assert figures.exact_match == 0.5


def test_widths_are_few():
    assert [bucket(length) for length in (1, 64, 65, 128, 129, 300)] == [64, 64, 128, 128, 256, 512]
    assert bucket(33, 32) == 64


def test_bfloat16_products_stay_near(tiny_model, examples):
    tiny_model = one_layer(tiny_model)
    batch = pack([[example] for example in examples], 48)
    losses = []
    for dtype in (jnp.float32, jnp.bfloat16):
        structure = structure_of(tiny_model.config, tiny_model.tokenizer, dtype=dtype)
        total, count = jax.jit(partial(cross_entropy, structure))(tiny_model.params, batch)["loss"]
        assert total.dtype == jnp.float32
        losses.append(float(total / count))
    assert 0 < abs(losses[0] - losses[1]) < 0.02 * losses[0]
