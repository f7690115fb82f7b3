from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from training.step import TrainState, accumulate, means, update

RNG = np.random.default_rng(0)
BATCH = {"x": RNG.normal(size=(12, 5)).astype(np.float32), "mask": RNG.random((12, 5)) < 0.4}
BATCH["mask"][3:6] = False  # a micro-batch without any token
PARAMS = {"w": jnp.array([0.5, -1.0, 2.0, 0.1, 0.7]), "b": jnp.float32(0.3)}


def loss(params, batch):
    """Token losses of rows with different numbers of tokens."""
    error = jnp.sin(batch["x"] * params["w"] + params["b"]) ** 2
    count = batch["mask"].sum().astype(jnp.float32)
    return {"loss": (jnp.where(batch["mask"], error, 0).sum(), count), "rows": (error.sum(), jnp.float32(12))}


def close(one, other):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), one, other)


@pytest.mark.parametrize("parts", [2, 4, 12])
def test_micro_batches_of_any_number_of_tokens_equal_the_big_batch(parts):
    run = jax.jit(partial(accumulate, loss), static_argnames="micro_batches")
    gradients, totals = run(PARAMS, BATCH, micro_batches=parts)
    expected, expected_totals = run(PARAMS, BATCH, micro_batches=1)
    close(gradients, expected)
    assert totals["loss"][1] == BATCH["mask"].sum()
    close(totals["loss"], expected_totals["loss"])


def test_the_gradient_is_that_of_the_mean():
    mean = lambda params: loss(params, BATCH)["loss"][0] / BATCH["mask"].sum()  # noqa: E731
    gradients, _ = jax.jit(partial(accumulate, loss, micro_batches=3))(PARAMS, BATCH)
    close(gradients, jax.grad(mean)(PARAMS))


def test_a_batch_without_tokens_changes_nothing():
    empty = {**BATCH, "mask": np.zeros_like(BATCH["mask"])}
    gradients, totals = jax.jit(partial(accumulate, loss, micro_batches=2))(PARAMS, empty)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))
    assert means(totals)["loss"] == 0


def test_means_divide_sums_by_their_own_counts():
    totals = {"a": (jnp.float32(6), jnp.float32(4)), "b": (jnp.float32(0), jnp.float32(0))}
    assert means(totals) == {"a": 1.5, "b": 0}


def test_an_update_moves_the_parameters_and_reports_the_norm_before_clipping():
    optimizer = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0))
    state = TrainState(jnp.int32(4), PARAMS, optimizer.init(PARAMS), {"kept": jnp.float32(9)})
    step = partial(update, loss=loss, optimizer=optimizer, micro_batches=2)
    new, metrics = jax.jit(step)(state, BATCH)
    gradients, _ = accumulate(loss, PARAMS, jax.tree.map(jnp.asarray, BATCH), micro_batches=1)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)
    close(new.params, jax.tree.map(lambda p, g: p - 1e-3 / norm * g, PARAMS, gradients))
    assert new.step == 5 and new.extra == {"kept": 9}
    eager, _ = step(state, jax.tree.map(jnp.asarray, BATCH))
    close(eager.params, new.params)
