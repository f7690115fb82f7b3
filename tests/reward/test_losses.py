from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward.losses import bradley_terry_loss

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))
CHOSEN, REJECTED, MARGIN = (GOLDEN[f"rm.in.{name}"] for name in ("chosen", "rejected", "margin"))
ALL = np.ones(16, bool)
MASK = np.arange(16) % 3 != 0


def result_as_auxiliary(*args, **options):
    result = bradley_terry_loss(*args, **options)
    return result.loss, result


# Gives ((gradient by chosen, by rejected), result), compiled as one: outside of jit every operation would be by itself.
loss_jit = jax.jit(
    jax.grad(result_as_auxiliary, argnums=(0, 1), has_aux=True), static_argnames=("centring", "label_smoothing")
)


@pytest.fixture(params=["float64", "float32"])
def tolerance(request):
    with jax.enable_x64(request.param == "float64"):
        yield {"float64": 1e-10, "float32": 2e-5}[request.param]


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("bt", {}),
        ("bt_margin", {"margin": MARGIN}),
        ("bt_center", {"centring": 0.01}),
        ("bt_margin_center", {"margin": MARGIN, "centring": 0.01}),
    ],
)
def test_golden_losses_and_gradients(tolerance, key, options):
    close = partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance)
    gradients, (loss, *_) = loss_jit(CHOSEN, REJECTED, ALL, **options)
    close(loss, GOLDEN[f"rm.{key}"])
    if "center" not in key:
        close(loss, GOLDEN[f"rm.{key}.openrlhf"])
    for side, gradient in zip(("chosen", "rejected"), gradients, strict=True):
        close(gradient, GOLDEN[f"rm.{key}.grad_{side}"])


@pytest.mark.parametrize(("key", "smoothing"), [("bt_ls010", 0.1), ("bt_ls030", 0.3)])
def test_golden_label_smoothing(x64, key, smoothing):
    loss = loss_jit(CHOSEN, REJECTED, ALL, label_smoothing=smoothing)[1].loss
    np.testing.assert_allclose(loss, GOLDEN[f"rm.{key}"], rtol=1e-10)


def test_golden_statistics(tolerance):
    _, result = loss_jit(CHOSEN, REJECTED, ALL)
    expected = [GOLDEN[f"rm.{key}"] for key in ("accuracy", "margin_mean", "mean_reward")]
    np.testing.assert_allclose([result.accuracy, result.margin, result.reward], expected, rtol=tolerance)


def test_equals_a_naive_reference(x64):
    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    kept = [i for i in range(16) if MASK[i]]
    total = 0.0
    for i in kept:
        p = sigmoid(CHOSEN[i] - REJECTED[i] - MARGIN[i])
        total += -0.9 * np.log(p) - 0.1 * np.log(1 - p) + 0.02 * (CHOSEN[i] + REJECTED[i]) ** 2
    options = {"margin": MARGIN, "centring": 0.02, "label_smoothing": 0.1}
    _, result = loss_jit(CHOSEN, REJECTED, MASK, **options)
    accuracy = np.mean([CHOSEN[i] > REJECTED[i] for i in kept])
    lead = np.mean([CHOSEN[i] - REJECTED[i] for i in kept])
    reward = np.mean([(CHOSEN[i] + REJECTED[i]) / 2 for i in kept])
    np.testing.assert_allclose(result, [total / len(kept), accuracy, lead, reward], rtol=1e-6)
    np.testing.assert_allclose(result.loss, total / len(kept), rtol=1e-10)
    eager = bradley_terry_loss(*map(jnp.asarray, (CHOSEN, REJECTED, MASK)), **options | {"margin": jnp.asarray(MARGIN)})
    np.testing.assert_allclose(result, eager, rtol=1e-10)


@pytest.mark.parametrize("garbage", [np.nan, 1e300])
def test_masked_equals_sliced_whatever_fills_the_batch(x64, garbage):
    dirty = [np.where(MASK, x, garbage) for x in (CHOSEN, REJECTED, MARGIN)]
    gradients, masked = loss_jit(*dirty[:2], MASK, margin=dirty[2], centring=0.01)
    _, sliced = loss_jit(CHOSEN[MASK], REJECTED[MASK], MASK[MASK], margin=MARGIN[MASK], centring=0.01)
    np.testing.assert_allclose(masked, sliced, rtol=1e-6)
    for gradient in gradients:
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[~MASK].any()


def test_a_batch_without_pairs_gives_0(x64):
    gradients, result = loss_jit(CHOSEN, REJECTED, ~ALL, centring=0.01)
    assert not np.any(gradients) and not np.any(result)


def test_a_certain_mistake_stays_finite_in_float32():
    chosen, rejected = np.full(16, -500, np.float32), np.full(16, 500, np.float32)
    gradients, result = loss_jit(chosen, rejected, ALL)
    np.testing.assert_allclose(result.loss, 1000)
    np.testing.assert_allclose(gradients, [np.full(16, -1 / 16), np.full(16, 1 / 16)])


def test_bfloat16_is_widened():
    chosen, rejected = CHOSEN.astype(jnp.bfloat16), REJECTED.astype(jnp.bfloat16)
    _, result = loss_jit(chosen, rejected, ALL)
    assert all(x.dtype == np.float32 for x in result)
    np.testing.assert_array_equal(result, loss_jit(chosen.astype(np.float32), rejected.astype(np.float32), ALL)[1])


@pytest.mark.parametrize("smoothing", [-0.1, 0.5])
def test_bad_options_are_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        loss_jit(CHOSEN, REJECTED, ALL, label_smoothing=smoothing)
