"""Rollouts on a real model: what is sampled is what is scored, tokens and pictures in their places."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import TALK, one_layer, scalar

from base_model.batch import Batch, pad_left
from base_model.checkpoint import structure_of
from base_model.generate import reply_keys, vocabulary_of
from base_model.media import Media
from base_model.sampling import SamplingConfig, sample
from base_model.tokenizer import PAD
from ppo.config import PPOConfig
from ppo.rewards import truncate_at_eos
from ppo.rollout import (
    Models,
    ScoreStatistics,
    assess,
    join,
    response_log_probs,
    response_values,
    responses_of,
    reward_scores,
)

LENGTH, TEMPERATURE = 6, 0.8
CONFIG = PPOConfig(response_length=LENGTH, temperature=TEMPERATURE, kl_coef=0.3, missing_eos_score=-2.0)
UNIT = ScoreStatistics(jnp.float32(0), jnp.float32(1))


@pytest.fixture(scope="module")
def policy(tiny_model):
    """Ends a reply every now and then."""
    model = one_layer(tiny_model)
    embedding = model.params["embedding"].at[model.tokenizer.end_of_turn].multiply(2.5)
    return replace(model, params={**model.params, "embedding": embedding})


@pytest.fixture(scope="module")
def critic(policy):
    return scalar(policy, seed=1)


@pytest.fixture(scope="module")
def reward_model(policy):
    return scalar(policy, seed=2)


@pytest.fixture(scope="module")
def models(policy):
    return Models(structure_of(policy.config, policy.tokenizer), vocabulary_of(policy))


@pytest.fixture(scope="module")
def prompts(policy, make_example, room_for):
    examples = [make_example(question, pictures=pictures) for question, _, pictures in TALK] * 4
    assert len({len(example) for example in examples}) > 3, "ragged"
    return pad_left(examples, 48, room_for(2))


@pytest.fixture(scope="module")
def samples(policy, models, prompts):
    keys = reply_keys(jax.random.key(5), np.arange(len(prompts.tokens)), 1)
    config = SamplingConfig(max_new_tokens=LENGTH, temperature=TEMPERATURE)
    return sample(models.structure, policy.params, prompts, keys, vocabulary=models.vocabulary, config=config)


@pytest.fixture(scope="module")
def responses(samples, models):
    return responses_of(samples, models.vocabulary)


@pytest.fixture(scope="module")
def reference(policy):
    """Another model than the policy."""
    return jax.tree.map(lambda x: 1.1 * x, policy.params)


@pytest.fixture(scope="module")
def judge(models, policy, critic, reward_model, reference, prompts):
    """Makes a rollout of samples, and its metrics."""

    def assessed(samples):
        return jax.device_get(assess(
            models, policy.params, critic.params, reference, reward_model.params, prompts, samples,
            ScoreStatistics(jnp.float32(0.5), jnp.float32(2.0)), jnp.float32(0.3), config=CONFIG,
        ))  # fmt: skip

    return assessed


@pytest.fixture(scope="module")
def judged(judge, samples):
    return judge(samples)


@pytest.fixture(scope="module")
def log_probs(models):
    function = jax.jit(
        lambda params, sequences, length: response_log_probs(
            models, params, sequences, length=length, temperature=TEMPERATURE
        ),
        static_argnums=2,
    )
    return lambda params, sequences, length=LENGTH: jax.device_get(function(params, sequences, length))


def test_the_trainer_scores_what_the_sampler_drew(judged, samples, prompts):
    rollout, metrics = judged
    mask = np.asarray(samples.mask)
    np.testing.assert_array_equal(rollout.mask, mask)
    lengths = mask.sum(1)
    assert lengths.min() < LENGTH and (mask.cumsum(1)[:, -1] == lengths).all() and lengths.min() >= 1
    difference = np.abs(np.asarray(samples.log_probs) - rollout.log_probs)[mask]
    assert difference.max() < 1e-5
    assert metrics["sampler_mismatch"] == pytest.approx(difference.max(), abs=1e-7)
    assert rollout.log_probs[mask].max() < 0


def test_a_rollout_ends_replies_where_recorded_ones_end(golden, judge, samples, models):
    """Whatever a sampler leaves behind an end of turn, and whatever it says of its length."""
    rows = np.resize(golden("tok.in.responses"), samples.tokens.shape)
    wanted = {name: np.resize(golden(f"tok.{name}"), rows.shape) for name in ("truncated", "mask")}
    ids = np.arange(10) + 20
    ids[[1, 2]] = PAD, models.vocabulary.end_of_turn
    rollout, metrics = judge(samples._replace(tokens=jnp.asarray(ids[rows], jnp.int32)))
    np.testing.assert_array_equal(rollout.mask, wanted["mask"])
    np.testing.assert_array_equal(rollout.sequences.tokens[:, -LENGTH:], ids[wanted["truncated"]])
    np.testing.assert_array_equal(rollout.sequences.learn[:, -LENGTH:], wanted["mask"])
    assert metrics["eos_rate"] == pytest.approx(np.resize(golden("tok.has_eos"), len(rows)).mean())
    assert metrics["response_length"] == pytest.approx(wanted["mask"].sum(1).mean())


def test_soft_tokens_roles_and_padding_are_never_sampled(samples, models, tiny_model):
    drawn = np.asarray(samples.tokens)[np.asarray(samples.mask)]
    forbidden = set(tiny_model.tokenizer.never_sampled)
    assert not forbidden & set(drawn.tolist()) and models.vocabulary.end_of_turn in drawn
    assert tiny_model.tokenizer.control("<image_soft_token>") in forbidden and 0 in forbidden


def test_log_probs_and_values_are_those_of_the_state_before_each_token(
    models, policy, critic, prompts, samples, judged
):
    """One token more at a time, unpadded: no slicing that could be off by one."""
    rollout = judged[0]

    @jax.jit
    def read(trunk, tokens, positions, media):
        decoder = nnx.merge(models.structure, trunk)
        hidden, _ = decoder(tokens, positions, jnp.ones_like(tokens), media)
        return decoder.logits(hidden[0]), hidden[0]

    head = jax.device_get(critic.params["head"])
    for row in (1, 3):  # with one and with two pictures
        prompt = np.asarray(prompts.tokens[row])[np.asarray(prompts.segments[row]) > 0]
        said = np.asarray(samples.tokens[row])[np.asarray(samples.mask[row])]
        whole = jnp.asarray(np.concatenate([prompt, said]))[None]
        media = jax.tree.map(lambda leaf: leaf[row : row + 1], prompts.media)  # noqa: B023
        arguments = whole, jnp.arange(whole.shape[1])[None], media
        logits, _ = jax.device_get(read(policy.params, *arguments))
        _, hidden = jax.device_get(read(critic.params["trunk"], *arguments))
        logits = np.array(logits)
        logits[:, models.vocabulary.never_sampled] = -np.inf
        for number, token in enumerate(said):
            state = logits[len(prompt) + number - 1].astype(np.float64) / TEMPERATURE
            wanted = state[token] - np.log(np.exp(state).sum())
            assert rollout.log_probs[row, number] == pytest.approx(wanted, abs=1e-5)
            value = hidden[len(prompt) + number - 1] @ head["weight"] + head["bias"]
            assert rollout.values[row, number] == pytest.approx(value, abs=1e-5)


def test_more_padding_changes_nothing(policy, prompts, responses, log_probs, judged):
    wide = jax.tree.map(lambda x: x, prompts)
    pad = lambda x: np.pad(np.asarray(x), ((0, 0), (9, 0)))  # noqa: E731
    wide = wide._replace(**{name: pad(getattr(wide, name)) for name in ("tokens", "segments", "positions", "learn")})
    found, _ = log_probs(policy.params, join(wide, responses))
    mask = np.asarray(responses.mask)
    np.testing.assert_allclose(found[mask], judged[0].log_probs[mask], atol=1e-5)


@pytest.mark.parametrize("run", ["k1", "k3"])
def test_prompts_and_replies_are_joined_as_recorded_ones_are(golden, run):
    """But for what a sampler drew behind an end: there it was left in its place and masked, here it is padding (1)."""
    queries, recorded = golden(f"trlstep.{run}.queries"), golden(f"trlstep.{run}.query_responses")
    asked = queries != 1
    prompts = Batch(queries, asked.astype(int), np.maximum(asked.cumsum(1) - 1, 0), np.zeros_like(asked), Media())
    responses = truncate_at_eos(jnp.asarray(golden(f"trlstep.{run}.responses")), eos_id=2, pad_id=1)
    joined = jax.device_get(join(prompts, responses))
    mask = ~golden(f"trlstep.{run}.padding_mask")
    np.testing.assert_array_equal(joined.segments > 0, np.concatenate([asked, mask], 1))
    np.testing.assert_array_equal(joined.tokens, np.where(joined.segments > 0, recorded, 1))
    np.testing.assert_array_equal(joined.learn, np.concatenate([np.zeros_like(asked), mask], 1))
    for places, real in zip(joined.positions, joined.segments > 0, strict=True):
        assert places[real].tolist() == list(range(real.sum())) and (places >= 0).all()


def test_positions_go_on_where_the_prompt_ends(prompts, responses):
    joined = jax.device_get(join(prompts, responses))
    for row in range(4):
        real = joined.segments[row] > 0
        assert joined.positions[row][real].tolist() == list(range(real.sum()))
        assert (joined.positions[row] >= 0).all()


def test_metrics_by_hand(judged, samples, models, reference, reward_model, log_probs):
    rollout, metrics = judged
    mask, tokens = np.asarray(samples.mask), np.asarray(samples.tokens)
    ended = (mask & (tokens == models.vocabulary.end_of_turn)).any(1)
    assert 0 < ended.mean() < 1 and metrics["eos_rate"] == pytest.approx(ended.mean())
    assert metrics["response_length"] == pytest.approx(mask.sum(1).mean())
    reference_log_probs, _ = log_probs(reference, rollout.sequences)
    kl = np.where(mask, rollout.log_probs - reference_log_probs, 0)
    assert metrics["kl"] == pytest.approx(kl.sum(1).mean(), abs=1e-4) and abs(metrics["kl"]) > 0.01
    raw = jax.device_get(jax.jit(lambda p, s: reward_scores(models, p, s))(reward_model.params, rollout.sequences))
    assert metrics["score"] == pytest.approx(raw.mean(), abs=1e-5)
    scores = np.where(ended, (raw - 0.5) / 2.0, -2.0)
    assert metrics["normalised_score"] == pytest.approx(scores.mean(), abs=1e-5)
    # gamma 1: the discounted sum of all rewards is what advantages and returns are made of.
    rewards = -0.3 * kl
    rewards[np.arange(len(mask)), mask.sum(1) - 1] += np.clip(scores, -5, 5)
    values = np.where(mask, rollout.values, 0)
    advantages = np.zeros_like(rewards)
    trace = np.zeros(len(mask))
    for t in reversed(range(LENGTH)):
        following = values[:, t + 1] if t + 1 < LENGTH else 0
        trace = rewards[:, t] + following - values[:, t] + 0.95 * trace
        advantages[:, t] = trace
    np.testing.assert_allclose(rollout.returns[mask], (advantages + values)[mask], atol=1e-4)
    kept = advantages[mask]
    np.testing.assert_allclose(rollout.advantages[mask], (kept - kept.mean()) / kept.std(ddof=1), atol=1e-4)
    assert (rollout.advantages[~mask] == 0).all() and (rollout.returns[~mask] == 0).all()


def test_all_four_models_see_the_picture(models, policy, critic, reward_model, prompts, responses, log_probs):
    sequences = jax.tree.map(np.asarray, join(prompts, responses))
    images = np.random.default_rng(0).permuted(sequences.media.images, axis=2)
    other = sequences._replace(media=Media(images))
    values = jax.jit(lambda params, s: response_values(models, params, s, length=LENGTH))
    scores = jax.jit(lambda params, s: reward_scores(models, params, s))
    pictured = np.array([bool(pictures) for _, _, pictures in TALK] * 4)
    for function in (
        lambda s: log_probs(policy.params, s)[0][:, 0],
        lambda s: np.asarray(values(critic.params, s))[:, 0],
        lambda s: np.asarray(scores(reward_model.params, s)),
    ):
        changed = np.abs(function(sequences) - function(other)) > 1e-6
        assert (changed == pictured).all(), "a picture changes its own row and no other"
