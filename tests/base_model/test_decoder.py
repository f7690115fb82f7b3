from dataclasses import replace
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from base_model.batch import pack, pad_left
from base_model.checkpoint import abstract_params, build, structure_of
from base_model.config import LayerSpec, ModelConfig
from base_model.decoder import Decoder
from base_model.layers import rms_norm
from base_model.likelihood import cross_entropy, held_out
from base_model.media import Media, blanked
from base_model.presets import tiny

LENGTH = 48


@partial(jax.jit, static_argnums=0)
def forward(structure, params, batch):
    decoder = nnx.merge(structure, params)
    tokens, segments, positions, _, media = batch
    hidden, _ = decoder(tokens, positions, segments, media)
    return decoder.logits(hidden)


@partial(jax.jit, static_argnums=(0, 3))
def read_in_parts(structure, params, batch, prefix):
    """The logits of a row of which `prefix` tokens are read at once and the others one by one, through the cache."""
    decoder = nnx.merge(structure, params)
    tokens, segments, positions, _, media = batch
    first = [x[:, :prefix] for x in (tokens, positions, segments)]
    hidden, cache = decoder.begin(decoder.embed(first[0], media), *first, slots=tokens.shape[1])

    def step(cache, column):
        hidden, cache = decoder(*(x[:, None] for x in column), None, cache)
        return cache, hidden[:, 0]

    columns = [x[:, prefix:].T for x in (tokens, positions, segments)]
    _, later = jax.lax.scan(step, cache, columns)
    return decoder.logits(jnp.concatenate([hidden, later.swapaxes(0, 1)], 1))


@pytest.fixture(scope="module")
def lay_out(room_for):
    """Packs up to four rows, always in the same shape, so that `forward` is compiled once."""
    return lambda rows: pack([*rows, *[[]] * (4 - len(rows))], LENGTH, room_for(2))


@pytest.fixture(scope="module")
def examples(make_example):
    """Four of different length, three of them with pictures."""
    return [
        make_example("what colour is this", "blue", pictures=[0]),
        make_example("hello", "how are you"),
        make_example("where is the cat", "on a mat", pictures=[1, 2]),
        make_example("yes", "no", pictures=[3]),
    ]


@pytest.fixture(params=["causal", "bidirectional"])
def attending(request, tiny_model):
    """The structure of the tiny model with either attention inside pictures; the parameters are the same."""
    return structure_of(replace(tiny_model.config, image_attention=request.param), tiny_model.tokenizer)


def test_packed_examples_do_not_see_each_other(attending, tiny_model, examples, lay_out):
    alone = lay_out([[example] for example in examples])
    rows = [[examples[0], examples[1]], [examples[3], examples[1]], [examples[2]], []]
    packed = lay_out(rows)
    one, many = (forward(attending, tiny_model.params, batch) for batch in (alone, packed))
    for row, start, example in [(0, 0, 0), (0, len(examples[0]), 1), (1, 0, 3), (1, len(examples[3]), 1), (2, 0, 2)]:
        length = len(examples[example])
        np.testing.assert_allclose(many[row, start : start + length], one[example, :length], atol=1e-5)


def test_the_loss_of_packed_examples_is_that_of_single_ones(structure, tiny_model, examples):
    loss = jax.jit(cross_entropy, static_argnums=0)
    packed = pack([[examples[0], examples[1]], [examples[3], examples[2]]], 2 * LENGTH)
    (total, count), (hits, _) = loss(structure, tiny_model.params, packed).values()
    figures = held_out(structure, tiny_model.params, examples, batch_size=2)
    assert count == sum(example.learn.sum() for example in examples)
    np.testing.assert_allclose(total / count, figures.loss, rtol=1e-5)
    assert 0 <= hits <= count


def test_padding_on_either_side_changes_nothing(structure, tiny_model, examples, lay_out, room_for):
    left = forward(structure, tiny_model.params, pad_left(examples, LENGTH, room_for(2)))
    right = forward(structure, tiny_model.params, lay_out([[e] for e in examples]))
    for row, example in enumerate(examples):
        np.testing.assert_allclose(left[row, -len(example) :], right[row, : len(example)], atol=1e-5)
    assert np.isfinite(left).all() and np.isfinite(right).all()


def test_the_picture_is_seen(structure, tiny_model, make_example, lay_out):
    rows = [make_example("what colour", "red", pictures=[number]) for number in (0, 1)]
    batch = lay_out([[row] for row in rows])
    seen = forward(structure, tiny_model.params, batch)
    hidden = forward(structure, tiny_model.params, batch._replace(media=blanked(batch.media)))
    first_soft = int(np.argmax(rows[0].tokens == tiny_model.tokenizer.control("<image_soft_token>")))
    np.testing.assert_array_equal(seen[0, :first_soft], hidden[0, :first_soft])
    last = len(rows[0]) - 1
    assert np.abs(seen[0, last] - hidden[0, last]).max() > 0.01  # hidden
    assert np.abs(seen[0, last] - seen[1, last]).max() > 0.01  # swapped


def test_each_picture_is_seen_in_its_own_place(structure, tiny_model, make_example, lay_out):
    rows = [make_example("?", "", pictures=pictures) for pictures in ([0, 1], [1, 0], [0, 0])]
    logits = forward(structure, tiny_model.params, lay_out([[row] for row in rows]))
    second = int(np.flatnonzero(rows[0].tokens == tiny_model.tokenizer.control("<start_of_image>"))[1])
    np.testing.assert_allclose(logits[0, : second + 1], logits[2, : second + 1], atol=1e-6)
    assert np.abs(logits[0, second + 1] - logits[2, second + 1]).max() > 0.01
    assert np.abs(logits[0, 3] - logits[1, 3]).max() > 0.01


def test_only_bidirectional_pictures_look_ahead(attending, tiny_model, make_example, lay_out):
    example = make_example("?", "", pictures=[0])
    batch = lay_out([[example], [example]])
    images = batch.media.images
    images[1, 0, 12:] = 255 - images[1, 0, 12:]  # the two lower soft tokens alone
    logits = forward(attending, tiny_model.params, batch)
    first = int(np.argmax(example.tokens == tiny_model.tokenizer.control("<image_soft_token>")))
    looks_ahead = bool(np.abs(logits[0, first] - logits[1, first]).max() > 1e-3)
    assert looks_ahead == (attending != structure_of(tiny_model.config, tiny_model.tokenizer))
    np.testing.assert_array_equal(logits[0, :first], logits[1, :first])


def test_reading_through_the_cache_equals_reading_at_once(attending, tiny_model, examples, room_for):
    batch = pad_left(examples, LENGTH, room_for(2))
    full = forward(attending, tiny_model.params, batch)
    # The pictures of all rows stand in the part that is read at once.
    parts = read_in_parts(attending, tiny_model.params, batch, 40)
    pictured = max(np.flatnonzero((batch.tokens == tiny_model.tokenizer.control("<image_soft_token>")).any(0)))
    assert pictured < 40
    real = batch.segments > 0
    np.testing.assert_allclose(np.asarray(parts)[real], np.asarray(full)[real], atol=1e-5)


def test_text_is_embedded_times_the_root_of_the_width_and_pictures_are_not(structure, tiny_model, make_example):
    decoder = nnx.merge(structure, tiny_model.params)
    batch = pack([[make_example("hi", "no", pictures=[0])]], 24)
    x = jax.jit(lambda tokens, media: decoder.embed(tokens, media))(batch.tokens, batch.media)[0]
    soft = jax.jit(lambda images: decoder.vision(images)[0])(batch.media.images[0])[0]
    is_soft = batch.tokens[0] == tiny_model.tokenizer.control("<image_soft_token>")
    np.testing.assert_allclose(x[is_soft], soft, atol=1e-6)
    expected = np.asarray(tiny_model.params["embedding"])[batch.tokens[0]] * 32**0.5
    np.testing.assert_allclose(x[~is_soft], expected[~is_soft], rtol=1e-6)


def test_logits_are_capped_softly(structure, tiny_model):
    decoder = nnx.merge(structure, tiny_model.params)
    hidden = jnp.asarray(np.random.default_rng(0).normal(size=(3, 32)), jnp.float32)
    plain = np.asarray(hidden) @ np.asarray(tiny_model.params["embedding"]).T
    np.testing.assert_allclose(decoder.logits(hidden), 30 * np.tanh(plain / 30), atol=1e-4)
    assert np.abs(decoder.logits(hidden * 1e6)).max() <= 30


def test_every_parameter_has_a_finite_gradient_that_is_not_zero(structure, tiny_model, examples, lay_out):
    batch = lay_out([[example] for example in examples])
    total = lambda params, batch: cross_entropy(structure, params, batch)["loss"][0]  # noqa: E731
    gradient = jax.jit(jax.grad(total))(tiny_model.params, batch)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def count(config):
    """Parameters of a config, without allocating them."""
    shape = jax.eval_shape(lambda: nnx.state(Decoder(config, soft_tokens=Media((4,), ()), rngs=nnx.Rngs(0)), nnx.Param))
    return sum(prod(leaf.shape) for leaf in jax.tree.leaves(shape))


@pytest.mark.parametrize(("layers", "mlp_dim", "millions"), [(21, 8192, 1792), (32, 12_288, 3255)])
def test_sizes_of_the_nano_models(layers, mlp_dim, millions):
    nano = LayerSpec(heads=8, kv_heads=1, head_dim=256, rope_theta=1e6, mlp_dim=mlp_dim)
    one, two = (count(ModelConfig(vocab_size=262_144, embed_dim=2048, layers=(nano,) * n)) for n in (1, 2))
    assert round((one + (layers - 1) * (two - one)) / 1e6) == millions


def test_size_of_the_shipped_model():
    assert 3.5e6 < count(tiny()) < 4.5e6


def test_abstract_parameters_are_those_of_a_built_model(tiny_model):
    abstract = abstract_params(tiny_model.config, tiny_model.tokenizer, "decoder")
    assert jax.tree.map(lambda x: (x.shape, x.dtype), abstract) == jax.tree.map(
        lambda x: (x.shape, x.dtype), tiny_model.params
    )


def test_a_tokenizer_of_another_size_is_refused(tiny_model):
    from training.errors import BadInput

    with pytest.raises(BadInput, match="340 ids and the config says 500"):
        build(replace(tiny_model.config, vocab_size=500), tiny_model.tokenizer)


def test_rms_norm_is_what_ends_the_decoder(structure, tiny_model, examples):
    batch = pack([[examples[1]]], LENGTH)
    decoder = nnx.merge(structure, tiny_model.params)
    hidden, cache = jax.jit(lambda *x: decoder(*x))(batch.tokens, batch.positions, batch.segments)
    assert cache is None
    unweighted = hidden / tiny_model.params["final_norm"]["weight"]
    np.testing.assert_allclose(rms_norm(unweighted, None, 0.0)[0], unweighted[0], rtol=1e-3)


def test_layers_computed_again_give_the_same_loss_and_gradients(tiny_model, lay_out, examples):
    # Two layers of one shape, which are one loop, between others.
    one, other = tiny_model.config.layers
    config = replace(tiny_model.config, layers=(other, one, one, other))
    blocks = tiny_model.params["blocks"]
    changed = jax.tree.map(lambda x: 1.1 * x, blocks[0])
    params = {**tiny_model.params, "blocks": {0: blocks[1], 1: blocks[0], 2: changed, 3: blocks[1]}}
    batch = lay_out([[example] for example in examples])

    def run(remat):
        structure = structure_of(config, tiny_model.tokenizer, remat=remat)
        loss = lambda params, batch: cross_entropy(structure, params, batch)["loss"][0]  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params, batch)

    (loss, gradients), (loss_again, gradients_again) = run(False), run(True)
    np.testing.assert_allclose(loss, loss_again, rtol=1e-6)
    leaves = zip(jax.tree.leaves(gradients), jax.tree.leaves(gradients_again), strict=True)
    for gradient, again in leaves:
        np.testing.assert_allclose(gradient, again, atol=1e-5 * float(jnp.abs(gradient).max()) + 1e-7)
