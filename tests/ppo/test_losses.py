import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from ppo.losses import aggregate, loss_denominator, policy_loss, value_loss

RNG = np.random.default_rng(0)
OLD, ADVANTAGES, VALUES, OLD_VALUES, RETURNS = RNG.normal(size=(5, 4, 6))
NEW = OLD + RNG.normal(0, 0.4, OLD.shape)
# Full, padded, with holes, empty.
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)
POLICY, VALUE = (NEW, OLD, ADVANTAGES, MASK), (VALUES, OLD_VALUES, RETURNS, MASK)
CLIPS = {"clip_low": 0.1, "clip_high": 0.3, "dual_clip": 1.5}
AGGREGATIONS = {  # ours: verl's
    "token_mean": "token_mean",
    "sequence_mean_token_mean": "seq_mean_token_mean",
    "sequence_mean_token_sum": "seq_mean_token_sum",
    "sequence_mean_token_sum_norm": "seq_mean_token_sum_norm",
}
each_aggregation = pytest.mark.parametrize("aggregation", AGGREGATIONS)


# The two rows of three tokens each, in place and cut out.
SHORT = MASK & (MASK.sum(1) == 3)[:, None]


def short(x):
    return np.stack([x[1, :3], x[2, [1, 3, 4]]])


def with_gradient(loss, static):
    """Jits a loss and its gradient as one: compiling takes most of the time of these tests."""

    def result_as_auxiliary(*args, **options):
        result = loss(*args, **options)
        return result.loss, result

    gradient = jax.jit(jax.grad(result_as_auxiliary, has_aux=True), static_argnames=static)
    return lambda *args, **options: gradient(*args, **options)[::-1]


policy_jit = with_gradient(policy_loss, ("clip_low", "clip_high", "dual_clip", "aggregation"))
value_jit = with_gradient(value_loss, ("clip", "aggregation"))
aggregate_jit = jax.jit(aggregate, static_argnames="aggregation")
denominator_jit = jax.jit(loss_denominator, static_argnames="aggregation")


@pytest.fixture
def policy_inputs(golden):
    return golden("lp.new"), golden("lp.old"), golden("gae.g100_l95.adv_whitened"), golden("in.mask")


@pytest.fixture
def value_inputs(golden):
    return golden("in.vpred_new"), golden("in.values_old"), golden("gae.g100_l95.returns"), golden("in.mask")


def test_golden_policy_loss_and_statistics(golden, tolerance, policy_inputs):
    result, _ = policy_jit(*policy_inputs)
    for key, value in {
        "loss.policy_token_mean": result.loss,
        "loss.policy_openrlhf_token": result.loss,
        "stat.pg_clipfrac": result.clip_fraction,
        "stat.openrlhf_clipratio": result.clip_fraction,
        "stat.approxkl_k2": result.approx_kl_k2,
        "stat.policykl_k1": result.approx_kl_k1,
        "stat.openrlhf_ppo_kl": result.approx_kl_k1,
        "stat.ratio_mean": result.ratio_mean,
    }.items():
        np.testing.assert_allclose(value, golden(key), rtol=max(tolerance, 1e-7), err_msg=key)
    ratio = golden("stat.ratio")[golden("in.mask")]
    np.testing.assert_allclose(result.ratio_var, ratio.var(ddof=1), rtol=tolerance)
    np.testing.assert_allclose(result.approx_kl_k3, np.mean(ratio - 1 - np.log(ratio)), rtol=10 * tolerance)
    assert result.dual_clip_fraction == 0


@each_aggregation
def test_golden_aggregations_and_their_gradients(golden, x64, policy_inputs, aggregation):
    (loss, *_), gradient = policy_jit(*policy_inputs, aggregation=aggregation)
    name = AGGREGATIONS[aggregation]
    agreement = 1e-7  # verl adds 1e-8 to the counts
    np.testing.assert_allclose(loss, golden(f"loss.policy_agg.{name}"), rtol=agreement)
    np.testing.assert_allclose(gradient, golden(f"loss.policy_agg_grad.{name}"), rtol=agreement, atol=agreement)
    if aggregation == "token_mean":
        np.testing.assert_allclose(gradient, golden("loss.policy_grad_lp"), rtol=1e-10, atol=1e-10)
    if aggregation == "sequence_mean_token_mean":
        np.testing.assert_allclose(loss, golden("loss.policy_openrlhf_seq"), rtol=agreement)


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum"])
def test_golden_aggregations_of_tunix(golden, tolerance, aggregation):
    name = "seq_mean_token_sum" if aggregation == "sequence_mean_token_sum" else aggregation
    result = aggregate_jit(golden("in.whiten_x"), golden("in.mask"), aggregation=aggregation)
    np.testing.assert_allclose(result, golden(f"chk.tunix_agg_{name}"), rtol=max(tolerance, 2e-6))


@pytest.mark.parametrize(("key", "dual_clip"), [("dual_c3", 3.0), ("dual_off", None)])
def test_golden_clip_higher_and_dual_clip(golden, x64, key, dual_clip):
    inputs = golden("in.lp_new_dual"), golden("lp.old"), golden("in.adv_dual"), golden("in.mask")
    result, _ = policy_jit(*inputs, clip_high=0.28, dual_clip=dual_clip)
    np.testing.assert_allclose(result.loss, golden(f"loss.{key}"), rtol=1e-7)
    np.testing.assert_allclose(result.clip_fraction, golden(f"stat.{key}_clipfrac"), rtol=1e-7)
    np.testing.assert_allclose(result.dual_clip_fraction, golden(f"stat.{key}_clipfrac_lower"), rtol=1e-7)


def test_golden_value_loss_and_statistics(golden, tolerance, policy_inputs, value_inputs):
    result, gradient = value_jit(*value_inputs)
    for key, value in {
        "loss.value_token_mean": result.loss,
        "loss.value_verl": result.loss,
        "loss.value_openrlhf": result.loss,
        "loss.value_scaled": 0.1 * result.loss,
        "loss.total": policy_jit(*policy_inputs)[0].loss + 0.1 * result.loss,
        "stat.vf_clipfrac": result.clip_fraction,
        "stat.vf_clipfrac_verl": result.clip_fraction,
        "stat.value_error": result.squared_error,
    }.items():
        np.testing.assert_allclose(value, golden(key), rtol=max(tolerance, 1e-7), err_msg=key)
    np.testing.assert_allclose(0.1 * gradient, golden("loss.value_grad_vpred"), rtol=tolerance, atol=tolerance)
    values, _, returns, mask = value_inputs
    unexplained = np.var((returns - values)[mask], ddof=1) / np.var(returns[mask], ddof=1)
    np.testing.assert_allclose(result.explained_variance, 1 - unexplained, rtol=10 * tolerance)


@pytest.mark.parametrize(("key", "clip"), [("loss.value_clip05", 0.5), ("loss.value_noclip", None)])
def test_golden_value_clips(golden, x64, value_inputs, key, clip):
    np.testing.assert_allclose(value_jit(*value_inputs, clip=clip)[0].loss, golden(key), rtol=1e-7)


def test_golden_first_minibatch(golden, tolerance, policy_inputs, value_inputs):
    """Before any update the ratio is 1: nothing is clipped and the loss is minus the mean advantage."""
    _, old, advantages, mask = policy_inputs
    result, _ = policy_jit(old, old, advantages, mask)
    np.testing.assert_allclose(result.loss, golden("loss.policy_at_ratio1"), atol=tolerance)
    np.testing.assert_allclose(result.loss, -advantages[mask].mean(), atol=tolerance)
    assert result.ratio_mean == 1
    assert not np.any([*result[1:6], result.ratio_var])
    _, old_values, returns, _ = value_inputs
    unmoved, _ = value_jit(old_values, old_values, returns, mask)
    np.testing.assert_allclose(unmoved.loss, golden("loss.value_at_ratio1"), rtol=tolerance)
    assert unmoved.clip_fraction == 0


@pytest.mark.parametrize("run", ["k1", "k3"])
def test_replay_of_a_recorded_run(golden, tolerance, run):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    recorded = {"policy": [], "value": []}
    for step, rows in enumerate(read("mb_micro_batch_inds")):
        mask, value_mask = ~read("padding_mask")[rows], ~read("padding_mask_p1")[rows]
        new, old = read("mb_new_logprobs")[step], read("logprobs")[rows]
        policy, _ = policy_jit(new, old, read("advantages")[rows], mask)
        value, _ = value_jit(read("mb_vpred")[step], read("values")[rows], read("returns")[rows], value_mask)
        ratio = read("mb_ratio")[step][mask]
        for key, result in {
            "pg_loss": policy.loss,
            "vf_loss": value.loss,
            "loss": policy.loss + 0.1 * value.loss,
            "pg_clipfrac": policy.clip_fraction,
            "vf_clipfrac": value.clip_fraction,
            # TRL's mean runs over padding, where it has the two log-probs agree.
            "approxkl": policy.approx_kl_k2 * mask.mean(),
        }.items():
            np.testing.assert_allclose(
                result, read(f"mb_{key}")[step], rtol=max(tolerance, 1e-7), atol=tolerance, err_msg=f"{key} {step}"
            )
        np.testing.assert_allclose(policy.ratio_mean, ratio.mean(), rtol=tolerance)
        np.testing.assert_allclose(policy.ratio_var, ratio.var(ddof=1), rtol=10 * tolerance, atol=tolerance)
        recorded["policy"].append((policy.loss, policy.clip_fraction))
        recorded["value"].append((value.loss, value.clip_fraction))
    logged = dict(zip(read("log_names"), read("log_values"), strict=True))
    for part, (loss, clip) in {name: np.mean(values, axis=0) for name, values in recorded.items()}.items():
        np.testing.assert_allclose(loss, logged[f"loss/{part}_avg"], rtol=max(tolerance, 1e-6))
        np.testing.assert_allclose(clip, logged[f"{part[:3] if part == 'value' else part}/clipfrac_avg"], rtol=1e-6)


def test_aggregations_equal_a_naive_reference(x64):
    rows = [[NEW[b, t] for t in range(6) if MASK[b, t]] for b in range(4)]
    rows = [row for row in rows if row]
    expected = {
        "token_mean": sum(map(sum, rows)) / sum(map(len, rows)),
        "sequence_mean_token_mean": sum(sum(row) / len(row) for row in rows) / len(rows),
        "sequence_mean_token_sum": sum(map(sum, rows)) / len(rows),
        "sequence_mean_token_sum_norm": sum(sum(row) / 6 for row in rows) / len(rows),
    }
    for aggregation, value in expected.items():
        np.testing.assert_allclose(aggregate_jit(NEW, MASK, aggregation=aggregation), value, rtol=1e-12)


def test_policy_loss_equals_a_naive_reference(x64):
    total, clipped, stopped, ratios = 0.0, 0, 0, []
    for b, t in zip(*np.nonzero(MASK), strict=True):
        ratio, advantage = np.exp(NEW[b, t] - OLD[b, t]), ADVANTAGES[b, t]
        surrogates = -advantage * ratio, -advantage * min(max(ratio, 0.9), 1.3)
        loss = max(surrogates)
        clipped += surrogates[1] > surrogates[0]
        if advantage < 0 and loss > -advantage * 1.5:
            loss, stopped = -advantage * 1.5, stopped + 1
        total += loss
        ratios.append(ratio)
    result, _ = policy_jit(*POLICY, **CLIPS)
    n, k1 = MASK.sum(), -np.log(ratios)
    expected = (total / n, clipped / n, stopped / n, k1.mean(), (k1**2 / 2).mean(), (np.exp(-k1) - 1 + k1).mean())
    np.testing.assert_allclose(result, [*expected, np.mean(ratios), np.var(ratios, ddof=1)], rtol=1e-6)
    np.testing.assert_allclose(result.loss, expected[0], rtol=1e-12)
    assert clipped > stopped > 0


def test_policy_loss_equals_rlax_on_rows_without_padding(x64):
    ratios = np.exp(NEW - OLD)
    oracle = jax.jit(rlax.clipped_surrogate_pg_loss)(ratios.ravel(), ADVANTAGES.ravel(), 0.2)
    loss = policy_jit(NEW, OLD, ADVANTAGES, np.ones_like(MASK))[0].loss
    np.testing.assert_allclose(loss, oracle, rtol=1e-12)


def test_value_loss_equals_a_naive_reference(x64):
    total, clipped = 0.0, 0
    for b, t in zip(*np.nonzero(MASK), strict=True):
        v, old, target = VALUES[b, t], OLD_VALUES[b, t], RETURNS[b, t]
        held = min(max(v, old - 0.2), old + 0.2)
        total += 0.5 * max((v - target) ** 2, (held - target) ** 2)
        clipped += (held - target) ** 2 > (v - target) ** 2
    errors = (RETURNS - VALUES)[MASK]
    explained = 1 - errors.var(ddof=1) / RETURNS[MASK].var(ddof=1)
    result, _ = value_jit(*VALUE)
    expected = [total / MASK.sum(), clipped / MASK.sum(), np.mean(errors**2), explained]
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(result.loss, expected[0], rtol=1e-12)


@each_aggregation
def test_micro_batches_add_up_to_the_minibatch(x64, aggregation):
    """With the minibatch's denominator its parts sum to it, however tokens are spread over them."""
    denominator = denominator_jit(MASK, aggregation=aggregation)
    parts = [
        aggregate_jit(NEW[b : b + 1], MASK[b : b + 1], aggregation=aggregation, denominator=denominator)
        for b in range(4)
    ]
    np.testing.assert_allclose(np.sum(parts), aggregate_jit(NEW, MASK, aggregation=aggregation), rtol=1e-12)


@pytest.mark.parametrize(("loss", "inputs"), [(policy_jit, POLICY), (value_jit, VALUE)], ids=["policy", "value"])
def test_losses_and_gradients_of_micro_batches_add_up(x64, loss, inputs):
    parts = [loss(*(x[b : b + 1] for x in inputs), denominator=denominator_jit(MASK)) for b in range(4)]
    whole, gradient = loss(*inputs)
    np.testing.assert_allclose(sum(part.loss for part, _ in parts), whole.loss, rtol=1e-10)
    np.testing.assert_allclose(np.concatenate([part for _, part in parts]), gradient, rtol=1e-10)


def test_without_it_the_mean_of_micro_batches_is_another_loss(x64):
    parts = [aggregate_jit(NEW[b : b + 1], MASK[b : b + 1]) for b in range(3)]
    assert abs(np.mean(parts) - aggregate_jit(NEW, MASK)) > 0.01


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean_token_mean", "sequence_mean_token_sum"])
def test_masked_equals_sliced(x64, aggregation):
    """But for "sequence_mean_token_sum_norm", which divides by the padded length on purpose."""
    masked = aggregate_jit(NEW, SHORT, aggregation=aggregation)
    sliced = aggregate_jit(short(NEW), short(MASK), aggregation=aggregation)
    np.testing.assert_allclose(masked, sliced, rtol=1e-12)


@pytest.mark.parametrize(("loss", "inputs"), [(policy_jit, POLICY), (value_jit, VALUE)], ids=["policy", "value"])
def test_masked_losses_equal_sliced_ones(x64, loss, inputs):
    masked, gradient = loss(*inputs[:3], SHORT)
    sliced, sliced_gradient = loss(*map(short, inputs))
    np.testing.assert_allclose(masked, sliced, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(short(np.asarray(gradient)), sliced_gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("loss", "inputs"), [(policy_jit, POLICY), (value_jit, VALUE)], ids=["policy", "value"])
@pytest.mark.parametrize("garbage", [np.nan, 1e30])
def test_what_stands_on_padding_reaches_neither_result_nor_gradient(x64, garbage, loss, inputs):
    clean, dirty = (loss(*(np.where(MASK, x, padding) for x in inputs[:3]), MASK) for padding in (0.0, garbage))
    np.testing.assert_array_equal(dirty[0], clean[0])
    np.testing.assert_array_equal(dirty[1], clean[1])
    assert np.isfinite(dirty[1]).all() and not np.asarray(dirty[1])[~MASK].any()


@each_aggregation
def test_an_empty_mask_aggregates_to_0(x64, aggregation):
    assert aggregate_jit(NEW, np.zeros_like(MASK), aggregation=aggregation) == 0


@pytest.mark.parametrize(("loss", "inputs"), [(policy_jit, POLICY), (value_jit, VALUE)], ids=["policy", "value"])
def test_an_empty_batch_gives_0_and_a_gradient_of_0(x64, loss, inputs):
    result, gradient = loss(*inputs[:3], np.zeros_like(MASK))
    assert not np.any(result) and not np.any(gradient)


@pytest.mark.parametrize("log_ratio", [200.0, -200.0])
def test_ratios_beyond_float32_leave_loss_and_gradient_finite(log_ratio):
    result, gradient = policy_jit(*(x.astype(np.float32) for x in (OLD + log_ratio, OLD, ADVANTAGES)), MASK)
    assert np.isfinite(result).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize(("loss", "inputs"), [(policy_loss, POLICY), (value_loss, VALUE)], ids=["policy", "value"])
def test_only_the_loss_has_a_gradient_and_only_by_its_first_argument(x64, loss, inputs):
    def weighted(*args):
        result = loss(*args, jnp.asarray(MASK))
        return result.loss, sum(result[1:])

    jacobian = jax.jit(jax.jacrev(weighted, argnums=(0, 1, 2)))(*inputs[:3])
    assert np.any(jacobian[0][0])
    assert not np.any(jacobian[0][1:]) and not np.any(jacobian[1])


def test_returns_that_do_not_vary_explain_nothing(x64):
    assert value_jit(VALUES, OLD_VALUES, np.full_like(RETURNS, 0.5), MASK)[0].explained_variance == 0


@pytest.mark.parametrize("loss", [policy_loss, value_loss])
def test_bfloat16_is_widened(loss):
    narrow = [jax.ShapeDtypeStruct(MASK.shape, jnp.bfloat16)] * 3
    result = jax.eval_shape(loss, *narrow, jax.ShapeDtypeStruct(MASK.shape, bool))
    assert {x.dtype for x in result} == {np.dtype("float32")}


def test_jit_equals_eager(x64):
    policy = policy_loss(*map(jnp.asarray, POLICY), **CLIPS)
    np.testing.assert_allclose(policy_jit(*POLICY, **CLIPS)[0], policy, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(value_jit(*VALUE)[0], value_loss(*map(jnp.asarray, VALUE)), rtol=1e-6, atol=1e-12)
    for aggregation in AGGREGATIONS:
        eager = aggregate(jnp.asarray(NEW), jnp.asarray(MASK), aggregation=aggregation)
        np.testing.assert_allclose(aggregate_jit(NEW, MASK, aggregation=aggregation), eager, rtol=1e-12)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="dual_clip must be greater than 1"):
        policy_jit(*POLICY, dual_clip=0.5)
