"""PPO runs on a model of one layer: the first minibatch, what stays frozen, resuming, and that it learns."""

import json
import shutil
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import TALK, Killed, killed_at, one_layer, prompt_rows, scalar, talk_rows

import ppo.interpolation
import ppo.worker
from base_model.batch import cuts_of
from base_model.checkpoint import structure_of
from base_model.sampling import sample
from base_model.tokenizer import Tokenizer
from ppo.config import PPOConfig
from ppo.rollout import assess
from ppo.train import PPOTrainer
from training.checkpoint import StateStore, content_digest, latest_step
from training.digest import folder_digest
from training.errors import BadInput
from training.loop import Diverged

# One output_dir for all runs, relative to each test's own folder: programs are compiled for their options, all of them.
OPTIONS = PPOConfig(
    output_dir="out", max_steps=4, save_steps=2, response_length=5, max_prompt_length=48, per_device_train_batch_size=4,
    gradient_accumulation_steps=2, num_mini_batches=2, num_ppo_epochs=2, learning_rate=1e-2,
    lr_scheduler_type="constant", kl_coef=0.1, kl_target=0.5,
    kl_horizon=50.0, missing_eos_score=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tiny_model):
    return one_layer(tiny_model)


@pytest.fixture(scope="module")
def reward_model(model):
    return scalar(model, seed=1)


@pytest.fixture(scope="module")
def start(model, reward_model, picture):
    """Makes a trainer."""
    return lambda options=OPTIONS, rows=None: PPOTrainer(model, reward_model, options, rows or prompt_rows(picture))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A run from start to end: trainer, what it returned, its metrics and its folder."""
    folder, places = tmp_path_factory.mktemp("whole"), []

    def placed(models, policy, critic, reference, reward, prompts, samples, *rest, **options):
        places.append(jax.tree.map(lambda x: x.sharding, (policy, critic, *rest)))
        return assess(models, policy, critic, reference, reward, prompts, samples, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(ppo.worker, "assess", placed)
        trainer = start()
        returned = trainer.train()
    assert len(places) == 5 and all(place == places[0] for place in places), "else it is compiled more than once"
    return trainer, returned, (folder / "out" / "metrics.jsonl").read_text(), folder / "out"


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def saved_state(folder, step=4):
    """The training state of a step, the last of OPTIONS if no other is named, as orbax has it."""
    store = StateStore(folder / "state")
    try:
        return store._manager.restore(step)["state"]
    finally:
        store.close()


def test_nothing_has_moved_at_the_first_minibatch_of_each_rollout(whole):
    steps = lines(whole[2])
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    for line in steps:
        assert line["first_ratio_mean"] == pytest.approx(1, abs=1e-5) and line["first_ratio_var"] < 1e-9
        assert line["first_clip_fraction"] == 0 and abs(line["first_approx_kl_k3"]) < 1e-6
        assert line["sampler_mismatch"] < 1e-5
        assert line["approx_kl_k3"] > 0, "but later it has"
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-6) != steps[-1]["kl"]


def test_it_returns_the_figures_of_the_last_rollout(whole):
    last = lines(whole[2])[-1]
    assert whole[1] == {name: value for name, value in last.items() if name != "step"}


def test_reference_and_reward_model_stay_as_they_were(whole, model, reward_model, start):
    assert content_digest(start().model.params) == content_digest(model.params)
    assert content_digest(start().reward_model.params) == content_digest(reward_model.params)
    assert content_digest(whole[0].model.params) != content_digest(model.params)


def test_the_controller_moves_the_coefficient(whole):
    steps = lines(whole[2])
    beta = 0.1
    for line in steps:
        assert line["kl_coef"] == pytest.approx(beta, rel=1e-5)
        beta *= 1 + np.clip(line["kl"] / 0.5 - 1, -0.2, 0.2) * 16 / 50
    assert beta != pytest.approx(0.1)


def test_scores_are_measured_against_the_references_replies(whole, start):
    mean, std = (float(saved_state(whole[3])["extra"]["score_statistics"][name]) for name in ("mean", "std"))
    first = lines(whole[2])[0]
    assert first["normalised_score"] == pytest.approx((first["score"] - mean) / std, abs=1e-4)
    assert abs(mean - first["score"]) < 2 * std and std > 0
    assert mean != first["score"], "not of the rollout itself"


def test_the_same_seed_gives_the_same_bytes_and_a_kill_changes_nothing(whole, start, here, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ppo.worker, "assess", killed_at(5, ppo.worker.assess))
        with pytest.raises(Killed):
            start().train()
    assert len(lines((here / "out" / "metrics.jsonl").read_text())) == 2, "the third was made and not yet written"
    trainer = start()
    assert trainer.train() == whole[1]
    assert (here / "out" / "metrics.jsonl").read_text() == whole[2]
    assert content_digest(trainer.model.params) == content_digest(whole[0].model.params)


def test_scores_that_are_not_numbers_end_the_run_and_the_state_before_is_kept(whole, start, here, monkeypatch):
    calls = []

    def broken_at_the_third(models, policy, critic, reference, reward_model, *rest, **options):
        calls.append(None)
        if len(calls) == 1 + 3:  # the first one is made for the statistics
            reward_model = jax.tree.map(lambda leaf: leaf * jnp.nan, reward_model)
        return assess(models, policy, critic, reference, reward_model, *rest, **options)

    monkeypatch.setattr(ppo.worker, "assess", broken_at_the_third)
    with pytest.raises(Diverged, match="loss is nan at step 3; the run stops here and the last saved state is kept"):
        start().train()
    found = lines((here / "out" / "metrics.jsonl").read_text())
    assert found[:2] == lines(whole[2])[:2] and found[2]["loss"] is None
    assert latest_step(here / "out" / "state") == 2


def test_prompts_that_are_read_in_parts_are_answered_and_assessed_alike(whole, start, here, monkeypatch):
    cuts, found = [], []

    def in_parts(*arguments, **options):
        cuts.append(options["cuts"])
        return sample(*arguments, **options)

    def first_alone(*arguments, **options):
        made = assess(*arguments, **options)
        found.append(made[1])
        if len(found) == 2:
            raise Killed
        return made

    monkeypatch.setattr(ppo.worker, "cuts_of", partial(cuts_of, at_once=16))
    monkeypatch.setattr(ppo.worker, "sample", in_parts)
    monkeypatch.setattr(ppo.worker, "assess", first_alone)
    with pytest.raises(Killed):
        start().train()
    assert cuts and all(cuts) and found[1]["sampler_mismatch"] < 1e-5
    for name in ("score", "entropy", "response_length"):
        assert found[1][name] == pytest.approx(lines(whole[2])[0][name], abs=1e-4)


def test_adapters_of_policy_and_critic_and_a_kill_changes_nothing(model, reward_model, start, here, monkeypatch):
    options = replace(OPTIONS, lora_r=2, max_steps=2, save_steps=1)
    whole, seen = start(options), []
    with monkeypatch.context() as patch:
        # Copied: the next step takes the state's memory for its own.
        look = lambda *given, **named: seen.append(jax.tree.map(np.array, given[1:5])) or assess(*given, **named)  # noqa: E731
        patch.setattr(ppo.worker, "assess", look)
        returned = whole.train()
    assert [line["first_ratio_mean"] for line in lines((here / "out" / "metrics.jsonl").read_text())] == [
        pytest.approx(1, abs=1e-5)
    ] * 2
    policy, critic, reference, judge = seen[2]
    assert content_digest(reference) == content_digest(model.params)
    assert content_digest(judge) == content_digest(reward_model.params)
    for moved, still in ((policy, reference), (critic["trunk"], judge["trunk"])):
        np.testing.assert_array_equal(moved["embedding"], still["embedding"])
        assert (moved["blocks"][0]["mlp"]["up"] != still["blocks"][0]["mlp"]["up"]).all()
    assert (critic["head"]["weight"] != judge["head"]["weight"]).all()
    digest = content_digest(whole.model.params)
    assert digest != content_digest(model.params)
    shutil.rmtree(here / "out")
    with monkeypatch.context() as patch:
        patch.setattr(ppo.worker, "assess", killed_at(3, assess))
        with pytest.raises(Killed):
            start(options).train()
    resumed = start(options)
    assert resumed.train() == returned and content_digest(resumed.model.params) == digest


def test_it_learns_to_say_what_is_rewarded(model, picture, here):
    """A bandit: the reward model likes replies that end in one certain token."""
    structure = structure_of(model.config, model.tokenizer)

    @jax.jit
    def hidden(params, tokens):
        places = jnp.broadcast_to(jnp.arange(2), tokens.shape)
        return nnx.merge(structure, params)(tokens, places, jnp.ones_like(tokens))[0][:, -1]

    star = model.tokenizer.encode("cat")[-1]
    tokens = [star, *(token for token in range(300, 316) if token != star)]
    states = np.asarray(hidden(model.params, np.array([[2, token] for token in tokens], np.int32)))
    direction = states[0] - states[1:].mean(0)
    head = {"weight": jnp.asarray(direction / np.linalg.norm(direction)), "bias": jnp.float32(0)}
    likes_star = replace(model, kind="scalar", params={"trunk": model.params, "head": head})
    options = replace(OPTIONS, max_steps=25, save_steps=0, kl_coef=0.0, kl_target=0.0)
    PPOTrainer(model, likes_star, options, prompt_rows(picture)).train()
    scores = [line["normalised_score"] for line in lines((here / "out" / "metrics.jsonl").read_text())]
    assert abs(np.mean(scores[:2])) < 0.7 and np.mean(scores[-3:]) > np.mean(scores[:2]) + 1, scores


def test_passes_end_early_when_the_policy_has_moved_far(start, here, whole):
    start(replace(OPTIONS, target_kl=1e-9, seed=1)).train()
    assert saved_state(whole[3])["step"] == 4 * 2 * 2
    assert saved_state(here / "out")["step"] == 4 * 1 * 2, "one of two passes"
    first, other = (lines(text)[0] for text in (whole[2], (here / "out" / "metrics.jsonl").read_text()))
    assert first["score"] != other["score"], "another seed draws other replies"


def test_training_ends_when_the_budget_of_divergence_is_spent(whole, start, here):
    spent, steps = [0.0], lines(whole[2])
    for line in steps:
        spent.append(0.75 * spent[-1] + 0.25 * line["kl"])
    last = int(np.argmax(spent))
    assert last >= 2
    budget = (max(spent[:last]) + spent[last]) / 2
    start(replace(OPTIONS, kl_budget=budget)).train()
    assert lines((here / "out" / "metrics.jsonl").read_text()) == steps[:last]
    start(replace(OPTIONS, kl_budget=budget)).train()
    assert lines((here / "out" / "metrics.jsonl").read_text()) == steps[:last], "a finished run takes no further step"


def test_models_must_fit_each_other(model, reward_model, picture, start):
    rows = prompt_rows(picture)
    stranger = replace(reward_model, tokenizer=Tokenizer.train(["the cat sat on a mat", "no"] * 50, vocab_size=285))
    with pytest.raises(BadInput, match="another tokenizer or chat template"):
        PPOTrainer(model, stranger, OPTIONS, rows)
    wider = replace(reward_model, config=replace(model.config, max_context=97))
    with pytest.raises(BadInput, match="decoders of different shapes"):
        PPOTrainer(model, wider, OPTIONS, rows)
    with pytest.raises(BadInput, match="needs a language model and a reward model"):
        PPOTrainer(model, model, OPTIONS, rows)
    with pytest.raises(BadInput, match="max_prompt_length . response_length is 97, and the model's context is 96"):
        start(replace(OPTIONS, max_prompt_length=92))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_supervised_rows_are_learned_beside_the_prompts(model, reward_model, picture, here):
    options = replace(
        OPTIONS, max_steps=2, save_steps=1, gradient_accumulation_steps=1, num_ppo_epochs=1, ptx_coef=3.0,
        ptx_max_length=64, per_device_ptx_batch_size=2,
    )  # fmt: skip
    make = lambda given: PPOTrainer(model, reward_model, given, prompt_rows(picture), None, talk_rows(picture))  # noqa: E731
    trainer = make(options)
    trainer.train()
    whole = (here / "out" / "metrics.jsonl").read_text()
    losses = [line["ptx_loss"] for line in lines(whole)]
    assert losses[1] < 0.9 * losses[0]
    shutil.rmtree("out")
    with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ppo.worker, "sample", killed_at(2, ppo.worker.sample))
        make(options).train()
    make(options).train()
    assert (here / "out" / "metrics.jsonl").read_text() == whole


def test_the_result_is_walked_back_until_it_is_varied(whole, model, start, here, monkeypatch):
    trained, _, metrics, folder = whole
    shutil.copytree(folder, here / "out")
    state, began, ended = folder_digest(folder / "state"), model.params["embedding"], trained.model.params["embedding"]
    moved = lambda given: float(np.abs(given.params["embedding"] - began).max())  # noqa: E731
    farthest, asked = moved(trained.model), []

    def replies(given, prompts, sampling, copies):
        """The further from the start, the more alike: of ten pairs of words one is new less with each tenth of it."""
        asked.append((len(prompts), sampling.max_new_tokens, sampling.temperature, copies))
        alike = round(10 * moved(given) / farthest)
        return [[" ".join(map(str, range(11 - alike))) + " 0 0" * alike] for _ in prompts]

    monkeypatch.setattr(ppo.interpolation, "generate", replies)
    trainer = start(replace(OPTIONS, result_diversity=0.6))
    walked = trainer.train()
    assert set(asked) == {(len(TALK), OPTIONS.response_length, OPTIONS.temperature, 25)}
    assert 0.6 <= walked["result_diversity"] < 0.7 and 0 < walked["result_share"] < 1
    kept = walked["result_share"]
    np.testing.assert_allclose(trainer.model.params["embedding"] - began, kept * (ended - began), atol=1e-6)
    all_of_it = start(replace(OPTIONS, result_diversity=0.01))
    assert all_of_it.train()["result_share"] == 1
    np.testing.assert_array_equal(all_of_it.model.params["embedding"], ended)
    # Another limit is another result of the same training, which was not done again.
    assert folder_digest(here / "out" / "state") == state and (here / "out" / "metrics.jsonl").read_text() == metrics


def test_supervised_rows_are_asked_for(model, reward_model, picture):
    with pytest.raises(BadInput, match="ptx_coef asks for supervised rows"):
        PPOTrainer(model, reward_model, replace(OPTIONS, ptx_coef=0.1), prompt_rows(picture))
