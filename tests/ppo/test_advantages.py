import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from ppo.advantages import generalised_advantages, whiten_advantages
from ppo.rewards import whiten_rewards

RNG = np.random.default_rng(0)
REWARDS, VALUES = RNG.normal(size=(2, 4, 6))
# Full, padded, with holes, empty.
MASK = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
    bool,
)

gae_jit = jax.jit(generalised_advantages, static_argnames=("gamma", "lam"))
whiten_jit = jax.jit(whiten_advantages)
whiten_rewards_jit = jax.jit(whiten_rewards)

COMPUTED = {  # gamma, lambda
    "g100_l95": (1.0, 0.95),
    "g099_l90": (0.99, 0.9),
    "g100_l100": (1.0, 1.0),
}


def naive(rewards, values, mask, gamma, lam):
    """The recursion over the kept tokens of one row, as a loop."""
    kept = [t for t in range(len(mask)) if mask[t]]
    advantages, following, trace = np.zeros(len(mask)), 0.0, 0.0
    for t in reversed(kept):
        trace = rewards[t] + gamma * following - values[t] + gamma * lam * trace
        advantages[t], following = trace, values[t]
    return advantages


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("g100_l95.adv_raw", "raw"),
        ("g099_l90.adv_raw", "raw"),
        ("g100_l100.adv_raw", "raw"),
        ("g100_l95.returns", "returns"),
        ("g100_l95.verl_returns", "returns"),
        ("g100_l95.openrlhf_returns", "returns"),
        ("g099_l90.returns", "returns"),
        ("g099_l90.verl_returns", "returns"),
        ("g099_l90.openrlhf_returns", "returns"),
        ("g100_l100.openrlhf_returns", "returns"),
        ("g100_l95.adv_whitened", "whitened"),
        ("g100_l95.verl_adv_whitened", "whitened"),
        ("g099_l90.adv_whitened", "whitened"),
        ("g099_l90.verl_adv_whitened", "whitened"),
        ("hole.adv_whitened", "whitened"),
        ("hole.returns", "returns"),
        ("chk.tunix_g100_l95_adv", "whitened"),
        ("chk.tunix_g100_l95_ret", "returns"),
        ("chk.tunix_g099_l90_adv", "whitened"),
        ("chk.tunix_g099_l90_ret", "returns"),
        ("chk.tunix_hole_adv", "whitened"),
    ],
)
def test_golden(golden, tolerance, key, kind):
    setting = key.removeprefix("chk.tunix_").removesuffix("_adv").removesuffix("_ret").split(".")[0]
    hole = setting == "hole"
    gamma, lam = COMPUTED["g100_l95" if hole else setting]
    mask = golden("in.mask_hole" if hole else "in.mask")
    advantages, returns = gae_jit(golden("rew.k1"), golden("in.values_old"), mask, gamma=gamma, lam=lam)
    result = {"raw": advantages, "returns": returns}.get(kind)
    if result is None:
        result = whiten_jit(advantages, mask)
    # Tunix computes in float32, and so does TRL when it unbiases a variance; verl adds 1e-8 to counts.
    agreement = 2e-6 if "tunix" in key else 1e-7 if kind == "whitened" else 0
    expected = np.where(mask, golden(key if key.startswith("chk") else f"gae.{key}"), 0)
    np.testing.assert_allclose(result, expected, rtol=max(tolerance, agreement), atol=max(tolerance, agreement))


def test_golden_with_whitened_rewards(golden, tolerance):
    """TRL 0.11 whitens padding too, and its advantages run on through it; ours end where the response ends."""
    rewards, values, mask = golden("rew.k1"), golden("in.values_old"), golden("in.mask")
    returns, advantages = (golden(f"gae.g100_l95_whitenrew.{name}") for name in ("returns", "adv_whitened"))
    whitened = np.asarray(whiten_rewards_jit(rewards, mask))
    kept = rewards[mask]
    leaked = np.where(mask, whitened, kept.mean() - kept.mean() / np.sqrt(kept.var(ddof=1) + 1e-8))
    tolerance = max(tolerance, 2e-7)

    theirs = gae_jit(leaked, np.where(mask, values, 0), np.ones_like(mask))
    np.testing.assert_allclose(np.where(mask, theirs.returns, returns), returns, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        whiten_jit(theirs.advantages, mask), np.where(mask, advantages, 0), rtol=tolerance, atol=tolerance
    )
    ours = gae_jit(whitened, values, mask)
    np.testing.assert_allclose(ours.returns[0], returns[0], rtol=tolerance, atol=tolerance)  # the row without padding
    expected = [naive(*row, 1.0, 0.95) for row in zip(whitened, values, mask, strict=True)]
    np.testing.assert_allclose(ours.advantages, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("run", "gamma", "lam"), [("k1", 1.0, 0.95), ("k3", 0.99, 0.9)])
def test_replay_of_a_recorded_run(golden, tolerance, run, gamma, lam):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    # TRL's score stands one token after the last, where it keeps one more value.
    advantages, returns = gae_jit(read("rewards"), read("values"), ~read("padding_mask_p1"), gamma=gamma, lam=lam)
    np.testing.assert_allclose(advantages, read("adv_raw"), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(returns, read("returns"), rtol=tolerance, atol=tolerance)
    whitened = whiten_jit(advantages, ~read("padding_mask"))
    np.testing.assert_allclose(whitened, read("advantages"), rtol=max(tolerance, 1e-7), atol=max(tolerance, 1e-7))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.9, 0.0)])
def test_equals_a_loop_over_the_kept_tokens_whatever_stands_elsewhere(x64, gamma, lam):
    expected = [naive(*row, gamma, lam) for row in zip(REWARDS, VALUES, MASK, strict=True)]
    dirty = np.where(MASK, REWARDS, np.nan), np.where(MASK, VALUES, np.inf)
    advantages, returns = gae_jit(*dirty, MASK, gamma=gamma, lam=lam)
    np.testing.assert_allclose(advantages, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(returns, np.where(MASK, expected + VALUES, 0), rtol=1e-12, atol=1e-12)


def test_masked_equals_sliced(x64):
    advantages = np.asarray(gae_jit(REWARDS, VALUES, MASK).advantages)
    for b in (1, 2):
        row = MASK[b]
        sliced = gae_jit(REWARDS[b : b + 1, row], VALUES[b : b + 1, row], MASK[b : b + 1, row]).advantages
        np.testing.assert_allclose(advantages[b, row], sliced[0], rtol=1e-12)


def test_without_padding_it_is_rlax(x64):
    values = np.append(VALUES[0], 0)
    expected = jax.jit(rlax.truncated_generalized_advantage_estimation)(REWARDS[0], np.full(6, 0.9), 0.5, values)
    advantages = gae_jit(REWARDS, VALUES, np.ones_like(MASK), gamma=0.9, lam=0.5).advantages
    np.testing.assert_allclose(advantages[0], expected, rtol=1e-12)


def test_lambda_1_gives_the_sums_of_rewards_to_come(x64):
    returns = np.asarray(gae_jit(REWARDS, VALUES, MASK, lam=1.0).returns)
    to_come = np.cumsum(np.where(MASK, REWARDS, 0)[:, ::-1], axis=1)[:, ::-1]
    np.testing.assert_allclose(returns, np.where(MASK, to_come, 0), rtol=1e-10, atol=1e-12)


def test_gradients_are_finite_and_0_off_the_mask(x64):
    def total(rewards, values):
        advantages, returns = generalised_advantages(rewards, values, jnp.asarray(MASK))
        return jnp.sum(jnp.square(whiten_advantages(advantages, jnp.asarray(MASK)) + returns))

    dirty = np.where(MASK, REWARDS, np.nan), np.where(MASK, VALUES, np.nan)
    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(*dirty):
        assert np.isfinite(gradient).all() and not np.asarray(gradient)[~MASK].any()


def test_jit_equals_eager(x64):
    eager = generalised_advantages(jnp.asarray(REWARDS), jnp.asarray(VALUES), jnp.asarray(MASK))
    for jitted, expected in zip(gae_jit(REWARDS, VALUES, MASK), eager, strict=True):
        np.testing.assert_allclose(jitted, expected, rtol=1e-12, atol=1e-14)
    whitened = whiten_advantages(eager.advantages, jnp.asarray(MASK))
    np.testing.assert_allclose(whiten_jit(eager.advantages, MASK), whitened, rtol=1e-12, atol=1e-14)


def test_bfloat16_is_widened():
    rewards, values = REWARDS.astype(jnp.bfloat16), VALUES.astype(jnp.bfloat16)
    advantages, returns = gae_jit(rewards, values, MASK)
    assert advantages.dtype == returns.dtype == np.float32
    expected = gae_jit(rewards.astype(np.float32), values.astype(np.float32), MASK).advantages
    np.testing.assert_array_equal(advantages, expected)


def test_whitened_advantages_have_mean_0_and_variance_1_over_the_response_tokens(x64):
    whitened = np.asarray(whiten_jit(np.where(MASK, REWARDS, np.nan), MASK))
    np.testing.assert_allclose([whitened[MASK].mean(), whitened[MASK].var(ddof=1)], [0, 1], atol=1e-7)
    assert not whitened[~MASK].any()
