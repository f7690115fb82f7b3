"""Where a score is read, and that neither padding nor company changes it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import TALK, one_layer, scalar

from base_model.batch import pack, pad_left
from reward.losses import bradley_terry_loss
from reward.model import batch_values, initial_params, score, segment_scores
from reward.train import PairBatch, pair_loss
from training.step import accumulate, means

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(tiny_model):
    return scalar(one_layer(tiny_model))


@pytest.fixture(scope="module")
def small(model, tiny_model):
    from base_model.checkpoint import structure_of

    return structure_of(model.config, model.tokenizer)


@pytest.fixture(scope="module")
def examples(make_example):
    return [make_example(question, answer, pictures=pictures) for question, answer, pictures in TALK]


@pytest.fixture(scope="module")
def scores(model, examples):
    return score(model, examples)


def test_the_score_is_the_heads_output_at_the_last_token(model, small, examples, scores):
    @jax.jit
    def hidden(params, batch):
        return nnx.merge(small, params["trunk"])(batch.tokens, batch.positions, batch.segments, batch.media)[0]

    weight, bias = np.asarray(model.params["head"]["weight"]), float(model.params["head"]["bias"])
    assert bias != 0
    for example, found in list(zip(examples, scores, strict=True))[:3]:
        last = np.asarray(hidden(model.params, pack([[example]], len(example))))[0, -1]
        assert found == pytest.approx(last @ weight + bias, abs=TOLERANCE)
    assert np.ptp(scores) > 0.1


@pytest.mark.parametrize(("width", "side"), [(64, pack), (93, pack), (64, pad_left), (93, pad_left)])
def test_padding_changes_no_score(model, small, examples, scores, width, side, room_for):
    rows = [[example] for example in examples] if side is pack else examples
    batch = side(rows, width, room_for(3))
    found = segment_scores(batch_values(small, model.params, batch), jnp.asarray(batch.segments), 1)[:, 0]
    np.testing.assert_allclose(found, scores, atol=TOLERANCE)


@pytest.mark.parametrize(("size", "packed"), [(1, False), (4, False), (4, True)])
def test_the_batch_changes_no_score(model, examples, scores, size, packed):
    options = {"batch_size": size, "packed": packed}
    np.testing.assert_allclose(score(model, examples, **options), scores, atol=TOLERANCE)
    np.testing.assert_allclose(score(model, examples[::-1], **options)[::-1], scores, atol=TOLERANCE)


def test_products_of_another_dtype_are_rounded_and_no_more(model, examples, scores):
    rounded = score(model, examples, dtype=jnp.bfloat16)
    assert 1e-5 < np.abs(rounded - scores).max() < 0.1


def test_texts_share_rows(model, examples, scores, monkeypatch):
    """Each further row would be work for nothing, each further shape a compilation."""
    shapes = []
    monkeypatch.setattr(
        "reward.model.batch_values", lambda *args: shapes.append(args[2].tokens.shape) or batch_values(*args)
    )
    found = score(model, [*examples] * 10)
    np.testing.assert_allclose(found, np.tile(scores, 10), atol=TOLERANCE)
    assert shapes == [(16, 256)], "60 texts"


def test_segment_scores_by_hand():
    values = jnp.arange(12.0).reshape(2, 6)
    segments = jnp.array([[1, 1, 2, 2, 2, 0], [0, 0, 1, 3, 3, 3]])
    found = jax.jit(segment_scores, static_argnums=2)(values, segments, 4)
    np.testing.assert_array_equal(found, [[1, 4, 0, 0], [8, 0, 11, 0]])


def test_segment_scores_equal_a_loop_jitted_or_not_with_gradients_of_what_is_read_alone():
    rng = np.random.default_rng(0)
    values, segments = rng.normal(size=(3, 9)).astype(np.float32), np.sort(rng.integers(1, 5, (3, 9)), axis=1)
    segments[:, -2:] = 0
    expected, read = np.zeros((3, 4)), np.zeros((3, 9))
    for row in range(3):
        for segment in range(1, 5):
            places = [place for place in range(9) if segments[row, place] == segment]
            if places:
                expected[row, segment - 1] = values[row, places[-1]]
                read[row, places[-1]] = 1
    function = lambda values: segment_scores(values, jnp.asarray(segments), 4)  # noqa: E731
    np.testing.assert_allclose(function(jnp.asarray(values)), expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(function)(values), function(jnp.asarray(values)))
    np.testing.assert_array_equal(jax.jit(jax.grad(lambda values: function(values).sum()))(values), read)


def test_micro_batches_of_packed_pairs_with_pictures_equal_the_big_batch(model, small, examples, room_for):
    """Rows with different numbers of pairs and pictures, cut into parts."""
    rows = pack([examples[:4], examples[4:], examples[2:4], examples[:2]], 180, room_for(5))
    real = np.array([[True, True], [True, False], [True, False], [True, False]])
    batch = PairBatch(rows, np.where(real, 0.3, 9.0).astype(np.float32), real)
    loss = partial(pair_loss, small, centring=0.1, label_smoothing=0.1)
    run = jax.jit(partial(accumulate, loss), static_argnames="micro_batches")
    (whole, totals), (parts, part_totals) = (run(model.params, batch, micro_batches=n) for n in (1, 2))
    size = lambda tree: np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(tree)))  # noqa: E731
    assert size(jax.tree.map(np.subtract, jax.device_get(parts), jax.device_get(whole))) < 1e-6 * size(whole)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), means(part_totals), means(totals))
    assert {name: count for name, (_, count) in part_totals.items()} == {name: n for name, (_, n) in totals.items()}
    assert totals["loss"][1] == 5 and size(whole) > 0.1


def test_a_fresh_head_is_small_and_centred(tiny_model):
    head = initial_params(tiny_model, seed=3)["head"]
    dim = tiny_model.config.embed_dim
    assert head["bias"] == 0 and head["weight"].shape == (dim,)
    assert abs(float(head["weight"].std()) * (dim + 1) ** 0.5 - 1) < 0.4
    assert not np.array_equal(head["weight"], initial_params(tiny_model, seed=4)["head"]["weight"])


@pytest.mark.parametrize(
    "options", [{"centring": 0.0, "label_smoothing": 0.0}, {"centring": 0.1, "label_smoothing": 0.2}]
)
def test_the_loss_of_packed_pairs_is_that_of_single_scores(model, small, examples, scores, options, room_for):
    # Pairs (0, 1), (2, 3) in the first row, (4, 5) in the second.
    rows = pack([examples[:4], examples[4:]], 180, room_for(5))
    margin = np.array([[0.5, 0.0], [1.0, 9.0]], np.float32)
    real = np.array([[True, True], [True, False]])
    loss = jax.jit(lambda params, batch: pair_loss(small, params, batch, **options))
    totals = loss(model.params, PairBatch(rows, margin, real))
    single = bradley_terry_loss(
        jnp.float32(scores[::2]),
        jnp.float32(scores[1::2]),
        jnp.ones(3, bool),
        margin=jnp.array([0.5, 0, 1.0]),
        **options,
    )
    for name, wanted in single._asdict().items():
        total, count = totals[name]
        assert count == 3 and float(total) / 3 == pytest.approx(float(wanted), abs=TOLERANCE), name
