from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppo.rewards import (
    normalise_scores,
    penalise_missing_eos,
    replace_missing_eos,
    score_index,
    token_rewards,
    truncate_at_eos,
    whiten_rewards,
)

RNG = np.random.default_rng(0)
SCORES, KL = RNG.normal(0, 2, 4), RNG.normal(size=(4, 6))
# Full, padded, with a hole, empty.
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], bool)

truncate_compiled = jax.jit(partial(truncate_at_eos, eos_id=2, pad_id=1))
rewards_jit = jax.jit(token_rewards, static_argnames=("score_clip", "score_position"))
whiten_jit = jax.jit(whiten_rewards)


def truncate_jit(tokens):
    return jax.tree.map(np.asarray, truncate_compiled(tokens))


def test_golden_truncation(golden):
    responses = truncate_jit(golden("tok.in.responses"))
    np.testing.assert_array_equal(responses.tokens, golden("tok.truncated"))
    np.testing.assert_array_equal(responses.mask, golden("tok.mask"))
    np.testing.assert_array_equal(responses.has_eos, golden("tok.has_eos"))
    np.testing.assert_array_equal(jax.jit(score_index)(responses.mask), golden("tok.last_index"))
    np.testing.assert_array_equal(responses.lengths, golden("tok.mask").sum(1))
    # TRL's values have one more valid position, unless the row is full.
    after_last = jax.jit(partial(score_index, score_position="after_last"))(responses.mask)
    np.testing.assert_array_equal(after_last, golden("tok.mask_p1").sum(1) - 1)


@pytest.mark.parametrize(
    ("row", "length", "has_eos"),
    [
        ([5, 2, 7, 2], 2, True),
        ([2, 2, 2, 2], 1, True),
        ([5, 6, 7, 8], 4, False),
        ([5, 6, 1, 1], 2, False),
        ([5, 1, 6, 2], 1, False),  # what stands after padding is not read, an EOS neither
        ([1, 1, 1, 1], 0, False),
    ],
)
def test_truncation_row_by_row(row, length, has_eos):
    responses = truncate_jit(np.array([row]))
    assert responses.tokens[0].tolist() == row[:length] + [1] * (4 - length)
    assert responses.mask[0].tolist() == [t < length for t in range(4)]
    assert (responses.lengths[0], responses.has_eos[0]) == (length, has_eos)
    assert jax.jit(score_index)(responses.mask)[0] == length - 1


@pytest.mark.parametrize(
    ("key", "kl", "scores", "score_clip"),
    [
        ("rew.k1", "kl.k1", "in.scores", None),
        ("rew.k2", "kl.k2", "in.scores", None),
        ("rew.openrlhf", "kl.k1", "in.scores", None),
        ("rew.openrlhf_clipped", "kl.k1", "in.scores_extreme", (-10.0, 10.0)),
        ("rew.k1_nonscore", "kl.k1", None, None),
    ],
)
def test_golden_rewards(golden, tolerance, key, kl, scores, score_clip):
    scores = np.zeros(5) if scores is None else golden(scores)
    rewards = rewards_jit(scores, golden(kl), golden("in.mask"), kl_coef=0.05, score_clip=score_clip)
    # OpenRLHF computes the divergence in float32.
    agreement = max(tolerance, 2e-6 if "openrlhf" in key else 0)
    np.testing.assert_allclose(rewards, np.where(golden("in.mask"), golden(key), 0), rtol=agreement, atol=agreement)


@pytest.mark.parametrize("run", ["k1", "k3"])
def test_replay_of_a_recorded_run(golden, tolerance, run):
    def read(name):
        return golden(f"trlstep.{run}.{name}")

    responses = truncate_jit(read("responses"))
    np.testing.assert_array_equal(responses.mask, ~read("padding_mask"))
    # Two rows sampled the padding id: TRL masks what follows it, as we do, but leaves it in the tokens.
    np.testing.assert_array_equal(responses.tokens, np.where(responses.mask, read("postprocessed_responses"), 1))
    np.testing.assert_array_equal(responses.has_eos, read("contain_eos_token"))
    np.testing.assert_array_equal(jax.jit(score_index)(responses.mask), read("sequence_lengths"))

    rewards = rewards_jit(read("scores"), read("kl"), responses.mask, kl_coef=0.05, score_position="after_last")
    np.testing.assert_allclose(rewards, read("rewards"), rtol=tolerance, atol=tolerance)

    logged = dict(zip(read("log_names"), read("log_values"), strict=True))
    np.testing.assert_allclose(read("scores").mean(), logged["objective/scores"], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(rewards).sum(1).mean(), logged["objective/rlhf_reward"], rtol=10 * tolerance)
    assert responses.has_eos.sum() == logged["val/num_eos_tokens"]


@pytest.mark.parametrize("score_position", ["last", "after_last"])
@pytest.mark.parametrize("score_clip", [None, (-1.0, 0.5)])
def test_rewards_equal_a_naive_reference(x64, score_position, score_clip):
    expected = np.zeros(MASK.shape)
    for b, row in enumerate(MASK):
        for t in range(6):
            expected[b, t] = -0.1 * KL[b, t] if row[t] else 0
        position = max([t for t in range(6) if row[t]], default=-1)
        if score_position == "after_last":
            position = min(position + 1, 5)
        if position >= 0:
            expected[b, position] += SCORES[b] if score_clip is None else np.clip(SCORES[b], *score_clip)
    options = {"kl_coef": 0.1, "score_clip": score_clip, "score_position": score_position}
    dirty = rewards_jit(SCORES, np.where(MASK, KL, np.nan), MASK, **options)
    np.testing.assert_allclose(dirty, expected, rtol=1e-12)
    eager = token_rewards(jnp.asarray(SCORES), jnp.asarray(KL), jnp.asarray(MASK), **options)
    np.testing.assert_allclose(dirty, eager, rtol=1e-12)


def test_masked_rewards_equal_sliced_ones(x64):
    rewards = rewards_jit(SCORES, KL, MASK, kl_coef=0.1)
    np.testing.assert_array_equal(
        np.asarray(rewards)[1, :3], rewards_jit(SCORES[1:2], KL[1:2, :3], MASK[1:2, :3], kl_coef=0.1)[0]
    )


def test_rewards_have_no_gradient(x64):
    def total(scores, kl):
        return jnp.sum(token_rewards(scores, kl, jnp.asarray(MASK), kl_coef=0.1))

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(SCORES, KL):
        assert not np.asarray(gradient).any()


def test_bfloat16_scores_are_added_in_float32():
    kl = np.full((1, 3), 0.001, np.float32)
    rewards = rewards_jit(np.array([100], jnp.bfloat16), kl, np.ones((1, 3), bool), kl_coef=1.0)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards[0], [-0.001, -0.001, 99.999], rtol=1e-6)


def test_scores_are_normalised():
    scores = np.array([1.0, 3.0], np.float32)
    np.testing.assert_allclose(jax.jit(partial(normalise_scores, mean=2.0))(scores), [-1, 1])
    np.testing.assert_allclose(jax.jit(partial(normalise_scores, mean=2.0, std=4.0))(scores), [-0.25, 0.25])
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(normalise_scores(x, mean=2.0, std=4.0))))(scores)
    np.testing.assert_allclose(gradient, [0.25, 0.25])


def test_a_missing_eos_is_replaced_or_penalised():
    scores, has_eos = np.array([0.5, 0.7], np.float32), np.array([True, False])
    np.testing.assert_allclose(jax.jit(replace_missing_eos)(scores, has_eos), [0.5, -1.0])
    np.testing.assert_allclose(jax.jit(partial(replace_missing_eos, score=-3.0))(scores, has_eos), [0.5, -3.0])
    np.testing.assert_allclose(jax.jit(partial(penalise_missing_eos, penalty=1.0))(scores, has_eos), [0.5, -0.3])
    # A NaN score of an unfinished response cannot come back through the gradient.
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(replace_missing_eos(x, jnp.asarray(has_eos)))))(
        np.float32([0.5, np.nan])
    )
    np.testing.assert_array_equal(gradient, [1, 0])


def test_whitened_rewards_keep_their_mean(x64):
    whitened = np.asarray(whiten_jit(np.where(MASK, KL, np.nan), MASK))
    kept = KL[MASK]
    np.testing.assert_allclose(whitened[MASK], (kept - kept.mean()) / kept.std(ddof=1) + kept.mean(), rtol=1e-6)
    assert not whitened[~MASK].any()


def test_jit_equals_eager(x64):
    """But for token rewards: see above."""
    scores, has_eos, kl, mask = jnp.asarray(SCORES), jnp.arange(4) % 2 == 0, jnp.asarray(KL), jnp.asarray(MASK)
    tokens = jnp.asarray(RNG.integers(0, 6, (4, 6)))
    for function, inputs in (
        (partial(truncate_at_eos, eos_id=2, pad_id=1), (tokens,)),
        (score_index, (mask,)),
        (partial(score_index, score_position="after_last"), (mask,)),
        (partial(normalise_scores, mean=0.3, std=1.7), (scores,)),
        (replace_missing_eos, (scores, has_eos)),
        (partial(penalise_missing_eos, penalty=0.5), (scores, has_eos)),
        (whiten_rewards, (kl, mask)),
    ):
        pairs = zip(jax.tree.leaves(jax.jit(function)(*inputs)), jax.tree.leaves(function(*inputs)), strict=True)
        for jitted, eager in pairs:
            np.testing.assert_allclose(jitted, eager, rtol=1e-12, atol=1e-14)


def test_gradients_by_scores_and_rewards_are_finite(x64):
    """What stands on padding or in an unfinished reply, NaN included, reaches no gradient."""
    dirty, has_eos = np.where(np.arange(4) == 3, np.nan, SCORES), np.arange(4) < 3

    def total(scores, rewards):
        kept = replace_missing_eos(normalise_scores(scores, mean=0.3, std=1.7), jnp.asarray(has_eos))
        fined = penalise_missing_eos(jnp.where(jnp.asarray(has_eos), scores, 0), jnp.asarray(has_eos), penalty=0.5)
        return jnp.sum(kept + fined) + jnp.sum(jnp.square(whiten_rewards(rewards, jnp.asarray(MASK))))

    by_score, by_reward = jax.jit(jax.grad(total, argnums=(0, 1)))(dirty, np.where(MASK, KL, np.nan))
    np.testing.assert_allclose(by_score, [1 / 1.7 + 1] * 3 + [0], rtol=1e-12)
    assert np.isfinite(by_reward).all() and not np.asarray(by_reward)[~MASK].any()


def test_any_of_several_ids_ends_a_response():
    rows = jnp.array([[5, 7, 3, 6], [5, 3, 7, 6], [5, 5, 6, 6]])
    found = truncate_at_eos(rows, eos_id=(3, 7), pad_id=0)
    assert found.lengths.tolist() == [2, 2, 4] and found.has_eos.tolist() == [True, True, False]


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="pad_id must differ from eos_id"):
        truncate_at_eos(jnp.zeros((1, 2), int), eos_id=2, pad_id=2)
    with pytest.raises(ValueError, match="pad_id must differ from eos_id"):
        truncate_at_eos(jnp.zeros((1, 2), int), eos_id=(3, 2), pad_id=2)
    with pytest.raises(ValueError, match="std must be positive"):
        normalise_scores(jnp.ones(2), mean=0.0, std=0.0)
