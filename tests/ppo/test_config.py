"""Every option of PPO does something, or says why it cannot."""

import dataclasses
import inspect
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_world import as_rows, one_layer, scalar

import ppo.learner
import ppo.rollout
import ppo.update
import ppo.worker
from base_model.batch import Batch
from base_model.sampling import Samples, Vocabulary
from ppo.config import PPOConfig
from ppo.rollout import Models, Rollout, ScoreStatistics
from ppo.train import PPOTrainer
from training.config import TrainingConfig
from training.errors import BadInput

B, R, V = 6, 4, 9
RNG = np.random.default_rng(0)
MASK = np.arange(R) < np.array([4, 2, 4, 3, 1, 4])[:, None]
DRAWN = {name: RNG.normal(size=(B, R)).astype(np.float32) for name in ("policy", "reference", "values", "old", "moved")}
SCORES = np.array([0.3, -7.0, 9.0, 1.0, 2.0, -1.0], np.float32)
ENDED = MASK.sum(1) < 4


@pytest.fixture
def numbers(monkeypatch):
    """Models that are tables: the options' effect is seen in a moment, without a decoder to compile."""
    log_probs = lambda models, params, sequences, *, length, temperature: (  # noqa: E731
        jnp.asarray(DRAWN[params]) / temperature - 2, jnp.full((B, R), 1.5) + jnp.asarray(DRAWN["old"])
    )  # fmt: skip
    values = lambda models, params, sequences, *, length: jnp.asarray(DRAWN[params])  # noqa: E731
    for module in (ppo.rollout, ppo.update):
        monkeypatch.setattr(module, "response_log_probs", log_probs)
        monkeypatch.setattr(module, "response_values", values)
    monkeypatch.setattr(ppo.rollout, "reward_scores", lambda models, params, sequences: jnp.asarray(SCORES))


ROLLOUT = PPOConfig(missing_eos_score=None, kl_coef=0.3)


def rolled(config):
    """Everything that a rollout computes under a config."""
    tokens = np.where(
        MASK, np.where(MASK.cumsum(1) == MASK.sum(1, keepdims=True), np.where(ENDED, 5, 7)[:, None], 7), 0
    )
    samples = Samples(jnp.asarray(tokens, jnp.int32), jnp.asarray(MASK), jnp.zeros((B, R)))
    ones = np.ones((B, 3), np.int32)
    prompts = Batch(ones, ones, ones, ones > 2, np.zeros((B, 0, 1, 1, 3), np.uint8))
    rollout, metrics = inspect.unwrap(ppo.rollout.assess)(
        Models(None, Vocabulary(5, (0,))), "policy", "values", "reference", "values", prompts, samples,
        ScoreStatistics(jnp.float32(0.1), jnp.float32(1.5)), jnp.float32(config.kl_coef), config=config,
    )  # fmt: skip
    return {"advantages": rollout.advantages, "returns": rollout.returns, **metrics}


@pytest.mark.parametrize(
    ("changed", "moves", "stays"),
    [
        ({"kl_coef": 0.6}, "returns", "kl"),
        ({"kl_estimator": "k2"}, "returns", "kl"),
        ({"kl_estimator": "k3"}, "returns", "kl"),
        ({"gamma": 0.9}, "returns", "normalised_score"),
        ({"lam": 0.5}, "returns", "normalised_score"),
        ({"whiten_rewards": True}, "returns", "normalised_score"),
        ({"score_clip": 0.5}, "returns", "normalised_score"),
        ({"score_clip": 0.0}, "returns", "normalised_score"),
        ({"missing_eos_score": -3.0}, "normalised_score", "score"),
        ({"missing_eos_penalty": 3.0}, "normalised_score", "score"),
        ({"temperature": 2.0}, "returns", "score"),
    ],
)
def test_options_of_the_rollout(numbers, changed, moves, stays):
    before, after = rolled(ROLLOUT), rolled(replace(ROLLOUT, **changed))
    assert not np.allclose(before[moves], after[moves], atol=1e-3)
    np.testing.assert_array_equal(before[stays], after[stays])


def test_a_reply_without_an_end_is_replaced_or_pays(numbers):
    plain = (SCORES - 0.1) / 1.5
    for options, wanted in (
        ({"missing_eos_score": -3.0}, np.where(ENDED, plain, -3.0)),
        ({"missing_eos_score": None}, plain),
        ({"missing_eos_score": None, "missing_eos_penalty": 2.0}, np.where(ENDED, plain, plain - 2.0)),
    ):
        found = rolled(replace(ROLLOUT, **options))["normalised_score"]
        assert float(found) == pytest.approx(wanted.mean(), rel=1e-5)
    with pytest.raises(BadInput, match="not both"):
        PPOConfig(missing_eos_penalty=1.0)


UPDATE = PPOConfig(cliprange=0.2, vf_coef=0.5)


def updated(config):
    """The loss of a minibatch and its gradient on the tables under a config."""
    arrays = {name: jnp.asarray(DRAWN[name]) for name in ("policy", "values", "old", "moved")}
    batch = Rollout(None, jnp.asarray(MASK), arrays["old"] - 2, arrays["moved"], arrays["moved"], arrays["old"])
    totals = ppo.update.ppo_loss(Models(None, None), {"policy": "policy", "critic": "values"}, batch, config=config)
    return {name: float(total / count) for name, (total, count) in totals.items()}


@pytest.mark.parametrize(
    ("changed", "moves"),
    [
        ({"cliprange": 0.1}, "policy_loss"),
        ({"cliprange_high": 0.5}, "policy_loss"),
        ({"dual_clip": 1.2}, "policy_loss"),
        ({"cliprange_value": 0.01}, "value_loss"),
        ({"vf_coef": 0.1}, "loss"),
        ({"entropy_coef": 0.1}, "loss"),
        ({"temperature": 2.0}, "policy_loss"),
        ({"loss_aggregation": "sequence_mean_token_mean"}, "policy_loss"),
        ({"loss_aggregation": "sequence_mean_token_sum"}, "value_loss"),
        ({"loss_aggregation": "sequence_mean_token_sum_norm"}, "value_loss"),
    ],
)
def test_options_of_the_update(numbers, changed, moves):
    before, after = updated(UPDATE), updated(replace(UPDATE, **changed))
    assert abs(before[moves] - after[moves]) > 1e-3


def test_the_entropy_bonus_is_aggregated_like_the_losses(numbers):
    entropy = np.where(MASK, 1.5 + DRAWN["old"], 0)
    for aggregation, mean in (
        ("token_mean", entropy.sum() / MASK.sum()),
        ("sequence_mean_token_mean", (entropy.sum(1) / MASK.sum(1)).mean()),
        ("sequence_mean_token_sum_norm", entropy.sum() / B / R),
    ):
        found = updated(replace(UPDATE, loss_aggregation=aggregation, entropy_coef=0.1))
        plain = found["policy_loss"] + 0.5 * found["value_loss"]
        assert plain - found["loss"] == pytest.approx(0.1 * mean, rel=1e-4)


@pytest.fixture(scope="module")
def loop(tiny_model):
    """Runs the loop with the models and the step left out: how often what is called, under which options."""
    model = one_layer(tiny_model)
    reward_model = scalar(model)

    def run(config, folder):
        seen = {"rollouts": [], "updates": [], "sampled": [], "statistics": []}
        batch = lambda rows: jnp.zeros((rows, 2))  # noqa: E731

        def sample(structure, params, prompts, keys, *, vocabulary, config, cuts):
            seen["sampled"].append((len(keys), config.max_new_tokens, config.temperature, prompts.tokens.shape[1]))
            return Samples(*(jnp.zeros((len(keys), 1), kind) for kind in (np.int32, bool, np.float32)))

        def assess(models, policy, critic, reference, reward, prompts, samples, statistics, kl_coef, *, config):
            seen["rollouts"].append(float(kl_coef))
            seen["statistics"].append(float(statistics.mean))
            metrics = {"kl": jnp.float32(2.0), "score": jnp.float32(4.0), "score_std": jnp.float32(1.0)}
            return Rollout(*[batch(len(prompts.tokens))] * len(Rollout._fields)), metrics

        def update(state, batch, frozen, *, loss, optimizer, micro_batches):
            seen["updates"].append((batch.mask.shape[0], micro_batches))
            kl = jnp.float32(0.02 * (1 + len(seen["updates"])))
            report = {name: kl for name in (*ppo.learner._FIRST, "loss")}
            return state._replace(step=state.step + 1), report

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ppo.worker, "sample", sample)
            patch.setattr(ppo.worker, "assess", assess)
            patch.setattr(ppo.learner, "update", update)
            patch.setattr(jax, "jit", lambda function, **options: function)
            rows = as_rows([{"prompt": "hello"}, {"prompt": "how are you"}])
            PPOTrainer(model, reward_model, replace(config, output_dir=str(folder)), rows).train()
        if config.normalize_scores:  # the first one is made for the statistics, and judged by none
            assert seen["rollouts"].pop(0) == pytest.approx(config.kl_coef) and seen["statistics"].pop(0) == 0
        return seen

    return run


LOOP = PPOConfig(
    per_device_train_batch_size=2, total_episodes=8, num_ppo_epochs=2, response_length=3, max_prompt_length=32
)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({}, {"rollouts": [0.05] * 4, "updates": [(2, 1)] * 8, "statistics": [4.0] * 4}),
        ({"total_episodes": 4}, {"rollouts": [0.05] * 2}),
        ({"max_steps": 3}, {"rollouts": [0.05] * 3}),
        ({"num_ppo_epochs": 3}, {"updates": [(2, 1)] * 12}),
        ({"num_mini_batches": 2}, {"rollouts": [0.05] * 2, "updates": [(2, 1)] * 8}),
        ({"gradient_accumulation_steps": 2}, {"rollouts": [0.05] * 2, "updates": [(4, 2)] * 4}),
        ({"per_device_train_batch_size": 4}, {"updates": [(4, 1)] * 4}),
        ({"normalize_scores": False}, {"statistics": [0.0] * 4}),
        ({"target_kl": 0.03}, {"updates": [(2, 1)] * 4}),
        ({"kl_coef": 0.2}, {"rollouts": [0.2] * 4}),
        ({"kl_target": 1.0, "kl_horizon": 10.0, "total_episodes": 4}, {"rollouts": [0.05, 0.05 * (1 + 0.2 * 0.2)]}),
        ({"kl_target": 1.0, "kl_horizon": 20.0, "total_episodes": 4}, {"rollouts": [0.05, 0.05 * (1 + 0.2 * 0.1)]}),
        ({"kl_target": 4.0, "kl_horizon": 10.0, "total_episodes": 4}, {"rollouts": [0.05, 0.05 * (1 - 0.2 * 0.2)]}),
        ({"response_length": 5, "temperature": 0.5}, {"sampled": [(2, 5, 0.5, 16)] * 5}),
        ({"max_prompt_length": 9}, {"sampled": [(2, 3, 1.0, 9)] * 5}),
    ],
)
def test_options_of_the_loop(loop, tmp_path, changed, wanted):
    seen = loop(replace(LOOP, **changed), tmp_path)
    for name, value in wanted.items():
        np.testing.assert_allclose(seen[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"num_train_epochs": 2.0}, "total_episodes"),
        ({"eval_steps": 5}, "no eval_steps"),
        ({"dual_clip": 0.5}, "above 1"),
        ({"dual_clip": float("nan")}, "above 1"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"gamma": 1.1}, "gamma lies between"),
        ({"lam": -0.1}, "lam lies between"),
        ({"response_length": 0}, "response_length"),
        ({"cliprange": 0.0}, "cliprange"),
        ({"cliprange_value": -1.0}, "cliprange_value"),
        ({"cliprange_high": -1.0}, "cliprange_high"),
        ({"kl_coef": float("nan")}, "kl_coef"),
        ({"score_clip": -1.0}, "score_clip"),
        ({"target_kl": -1.0}, "target_kl"),
        ({"vf_coef": -1.0}, "vf_coef"),
        ({"entropy_coef": -1.0}, "entropy_coef"),
        ({"ptx_coef": -1.0}, "ptx_coef"),
        ({"ptx_max_length": 0}, "ptx_max_length"),
        ({"per_device_ptx_batch_size": 0}, "per_device_ptx_batch_size"),
        ({"total_episodes": 0}, "total_episodes"),
        ({"missing_eos_score": None, "missing_eos_penalty": -1.0}, "missing_eos_penalty"),
    ],
)
def test_what_cannot_be_is_said(options, reason):
    with pytest.raises(BadInput, match=reason):
        PPOConfig(**options)


@pytest.mark.parametrize(("name", "known"), [("kl_estimator", "k1, k2, k3"), ("loss_aggregation", "token_mean, ")])
def test_an_unknown_word_is_answered_with_the_known_ones(name, known):
    config = PPOConfig()
    object.__setattr__(config, name, "other")  # the type checker of the tests would be faster
    with pytest.raises(BadInput, match=f"{name} is one of {known}.* not 'other'"):
        config.__post_init__()


def test_a_horizon_that_could_turn_the_coefficient_is_refused_before_any_work(loop, tmp_path):
    with pytest.raises(BadInput, match="kl_horizon"):
        loop(replace(LOOP, kl_target=1.0, kl_horizon=0.4), tmp_path)


def test_no_option_is_forgotten():
    """A new option belongs into one of the tables above; options of every trainer have their own tests."""
    tables = (
        test_options_of_the_rollout,
        test_options_of_the_update,
        test_options_of_the_loop,
        test_what_cannot_be_is_said,
    )
    tried = {name for test in tables for mark in test.pytestmark for case in mark.args[1] for name in case[0]}
    elsewhere = {"on_bad_row", "kl_budget", "result_diversity", "probe_steps"}  # tests of prompts, training, the probe
    own = {field.name for field in dataclasses.fields(PPOConfig)} - {f.name for f in dataclasses.fields(TrainingConfig)}
    assert own <= tried | elsewhere
