"""One update: the first minibatch, separate trunks, micro-batches that equal the whole, supervised rows beside."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_world import TALK, one_layer, scalar, talk_rows

from base_model.batch import pad_left
from base_model.checkpoint import structure_of
from base_model.generate import vocabulary_of
from base_model.likelihood import cross_entropy
from base_model.sampling import Samples
from ppo.config import PPOConfig
from ppo.ptx import SupervisedRows
from ppo.rollout import Models, ScoreStatistics, assess
from ppo.update import ppo_loss, ppo_ptx_loss
from training.step import accumulate, means

LENGTH = 6
CONFIG = PPOConfig(response_length=LENGTH, vf_coef=0.3, entropy_coef=0.02, missing_eos_score=None)


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def models(model):
    return Models(structure_of(model.config, model.tokenizer), vocabulary_of(model))


@pytest.fixture(scope="module")
def params(model):
    return {"policy": model.params, "critic": scalar(model, seed=1).params}


@pytest.fixture(scope="module")
def rollout(model, models, params, make_example, room_for):
    """Eight episodes, ragged, a few with pictures; lengths cut so that micro-batches differ in tokens."""
    talk = (*TALK, *TALK[:2])
    prompts = pad_left([make_example(q, pictures=p) for q, _, p in talk], 48, room_for(2))
    mask = np.arange(LENGTH) < np.array([1, 6, 2, 6, 6, 3, 6, 5])[:, None]
    said = np.random.default_rng(0).integers(300, 340, mask.shape, dtype=np.int32)
    drawn = Samples(jnp.asarray(np.where(mask, said, 0)), jnp.asarray(mask), jnp.zeros(mask.shape))
    unit = ScoreStatistics(jnp.float32(0), jnp.float32(1))
    return assess(
        models, params["policy"], params["critic"], params["policy"], scalar(model, seed=2).params, prompts, drawn,
        unit, jnp.float32(0.05), config=CONFIG,
    )[0]  # fmt: skip


@pytest.fixture(scope="module")
def gradient(models):
    return jax.jit(
        lambda params, batch, parts: accumulate(
            partial(ppo_loss, models, config=CONFIG), params, batch, micro_batches=parts
        ),
        static_argnums=2,
    )


@pytest.fixture(scope="module")
def whole(gradient, params, rollout):
    return gradient(params, rollout, 1)


def test_the_first_minibatch(whole, rollout, models, params):
    figures = jax.device_get(means(whole[1]))
    assert float(figures["ratio_mean"]) == pytest.approx(1, abs=1e-5) and float(figures["ratio_var"]) < 1e-9
    assert figures["clip_fraction"] == figures["dual_clip_fraction"] == figures["value_clip_fraction"] == 0
    for estimator in ("k1", "k2", "k3"):
        assert abs(float(figures[f"approx_kl_{estimator}"])) < 1e-6
    mask = np.asarray(rollout.mask)
    advantages, returns, values = (np.asarray(x)[mask] for x in (rollout.advantages, rollout.returns, rollout.values))
    assert float(figures["policy_loss"]) == pytest.approx(-advantages.mean(), abs=1e-5)
    assert float(figures["value_loss"]) == pytest.approx(((values - returns) ** 2).mean() / 2, rel=1e-4)
    whole_loss = figures["policy_loss"] + 0.3 * figures["value_loss"]
    entropy = (whole_loss - figures["loss"]) / 0.02
    assert 0 < entropy < np.log(len(models.vocabulary.never_sampled) + 340)
    wanted = 1 - np.var(returns - values) / np.var(returns)
    assert float(figures["value_explained_variance"]) == pytest.approx(wanted, abs=1e-3)


def test_micro_batches_equal_the_whole(gradient, params, rollout, whole):
    gradients, totals = gradient(params, rollout, 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, whole[0])
    for name in ("loss", "policy_loss", "value_loss"):
        assert float(means(totals)[name]) == pytest.approx(float(means(whole[1])[name]), abs=1e-6)


def test_policy_and_critic_have_trunks_of_their_own(models, params, rollout, whole):
    norm = lambda tree: float(sum(np.abs(x).sum() for x in jax.tree.leaves(tree)))  # noqa: E731
    assert (
        norm(whole[0]["policy"]) > 0 and norm(whole[0]["critic"]["trunk"]) > 0 and norm(whole[0]["critic"]["head"]) > 0
    )
    # The picture encoders of both learn, each for itself.
    assert norm(whole[0]["policy"]["vision"]) > 0 and norm(whole[0]["critic"]["trunk"]["vision"]) > 0

    @jax.jit
    def both(params, batch):
        def losses(params):
            totals = ppo_loss(models, params, batch, config=CONFIG)
            return [totals[name][0] for name in ("policy_loss", "value_loss")]

        return jax.jacrev(losses)(params)

    only_policy, only_critic = both(params, rollout)
    assert norm(only_policy["critic"]) == 0 < norm(only_policy["policy"])
    assert norm(only_critic["policy"]) == 0 < norm(only_critic["critic"])


@pytest.fixture(scope="module")
def supervised(model, picture):
    """Two packed rows a micro-batch, of which there are two."""
    config = replace(CONFIG, ptx_max_length=64, per_device_ptx_batch_size=2, gradient_accumulation_steps=2)
    return SupervisedRows(talk_rows(picture), model, config, row_shards=1)


def test_supervised_rows_add_their_mean_cross_entropy(gradient, params, rollout, whole, models, supervised):
    config = replace(CONFIG, ptx_coef=0.7)
    mixed = supervised.beside(rollout, 0)
    learn = mixed.supervised.learn
    assert len(learn) == 4 and learn[:2].sum() != learn[2:].sum()
    alone = jax.jit(partial(accumulate, partial(cross_entropy, models.structure), micro_batches=1))
    policy, totals = alone(params["policy"], mixed.supervised)
    wanted = {**whole[0], "policy": jax.tree.map(lambda a, b: a + 0.7 * b, whole[0]["policy"], policy)}
    for parts in (1, 2):
        found = jax.jit(partial(accumulate, partial(ppo_ptx_loss, models, config=config), micro_batches=parts))
        gradients, both = found(params, mixed)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), gradients, wanted)
        assert float(means(both)["ptx_loss"]) == pytest.approx(float(means(totals)["loss"]), abs=1e-5)
        loss = float(means(whole[1])["loss"]) + 0.7 * float(means(totals)["loss"])
        assert float(means(both)["loss"]) == pytest.approx(loss, abs=1e-5)


def test_supervised_rows_follow_from_the_number_of_the_minibatch(rollout, supervised, model, picture):
    again = SupervisedRows(talk_rows(picture), model, supervised._config, row_shards=1)
    assert again.digest == supervised.digest
    tokens = [again.beside(rollout, number).supervised.tokens for number in (3, 0, 3)]
    assert (tokens[0] == tokens[2]).all() and (tokens[0] != tokens[1]).any()
    assert (tokens[0] == supervised.beside(rollout, 3).supervised.tokens).all()
    spread = SupervisedRows(talk_rows(picture), model, supervised._config, row_shards=2)
    assert len(spread.beside(rollout, 0).supervised.tokens) == 8
