"""Rollouts of a policy that draws: codes are actions like any other, and both sides agree on their probabilities."""

from pathlib import Path

import drawings
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_world import one_layer, scalar, turn

from base_model.batch import pad_left
from base_model.chat import messages_to_segments
from base_model.checkpoint import structure_of
from base_model.generate import reply_keys
from base_model.interleave import interleave
from base_model.sampling import SamplingConfig, sample
from ppo.config import PPOConfig
from ppo.rollout import Models, ScoreStatistics, assess
from ppo.update import ppo_loss

CONFIG = PPOConfig(response_length=24, temperature=0.8, entropy_coef=0.01)


@pytest.fixture(scope="module")
def policy(tiny_model, image_tokenizer):
    return drawings.drawing(one_layer(tiny_model), image_tokenizer)


@pytest.fixture(scope="module")
def models(policy):
    return Models(structure_of(policy.config, policy.tokenizer), drawings.few_words(policy))


@pytest.fixture(scope="module")
def rollout(policy, models):
    """Sixteen replies, and what is known of them."""
    segments = lambda name: messages_to_segments([turn(name)], policy.tokenizer, folder=Path(), ending="reply")  # noqa: E731
    prompts = [interleave(segments(name), policy.tokenizer, policy.config) for name in [*drawings.PICTURES] * 4]
    batch, keys = pad_left(prompts, 16), reply_keys(jax.random.key(1), np.arange(16), 1)
    options = SamplingConfig(max_new_tokens=CONFIG.response_length, temperature=CONFIG.temperature)
    samples = sample(models.structure, policy.params, batch, keys, vocabulary=models.vocabulary, config=options)
    critic, reward_model = scalar(policy, seed=1).params, scalar(policy, seed=2).params
    statistics = ScoreStatistics(jnp.float32(0), jnp.float32(1))
    found, metrics = assess(
        models, policy.params, critic, policy.params, reward_model, batch, samples, statistics, jnp.float32(0.1),
        config=CONFIG,
    )  # fmt: skip
    return samples, found, metrics, critic


def test_sampler_and_trainer_agree_on_every_code(rollout, models):
    samples, found, metrics, _ = rollout
    codes, tokens = models.vocabulary.images, np.asarray(samples.tokens)
    is_code = (tokens >= codes.first) & np.asarray(samples.mask)
    assert is_code.sum() > codes.length, "more than one picture"
    assert metrics["sampler_mismatch"] < 1e-5 and np.isfinite(metrics["entropy"])
    # Of 36 codes each is likelier than in the whole vocabulary, and the end of a full picture is certain.
    assert np.asarray(samples.log_probs)[is_code].mean() > -np.log(100)
    np.testing.assert_allclose(np.asarray(found.log_probs)[tokens == codes.end], 0, atol=1e-5)


def test_the_loss_moves_codes(rollout, models, policy):
    _, found, _, critic = rollout
    codes = models.vocabulary.images

    def loss(policy):
        return ppo_loss(models, {"policy": policy, "critic": critic}, found, config=CONFIG)["loss"][0]

    gradient = np.asarray(jax.jit(jax.grad(loss))(policy.params)["embedding"])
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient[codes.first :]).max(1) > 0).mean() > 0.5
