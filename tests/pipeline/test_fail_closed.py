"""Whatever goes wrong in a gate, as a script sees it: exit code 3 or 4, a verdict that says so, and no next stage."""

import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import yaml
from wrong_judges import SAMPLERS, SCORERS, Wrong, raises

from base_model import checkpoint
from pipeline import cli, gated_run, report
from safety.gate_folder import load
from safety.scorers.lexical import LexicalScorer

# The command line runs in this process.
pytestmark = pytest.mark.usefixtures("in_process")


def fine(texts, plan):
    """Replies that pass."""
    return [[f"so {row} {copy} is a fine day" for copy in range(plan.samples_per_prompt)] for row in range(len(texts))]


def toxic(texts, plan):
    return [["shut up you stupid idiot"] * plan.samples_per_prompt for _ in texts]


@pytest.fixture(scope="module")
def world(tiny_model, tmp_path_factory):
    """A base model, an SFT checkpoint and a reward model that no trainer made, data, and policies."""
    folder = tmp_path_factory.mktemp("world")
    tiny_run.write(folder, tiny_model)
    base, run = checkpoint.load(folder / "base"), folder / "run"
    for stage in ("sft", "reward"):
        (run / stage).mkdir(parents=True)
    shutil.copy(folder / "run.yaml", run)
    checkpoint.save(base, run / "sft" / "checkpoint")
    head = {"weight": jnp.zeros(base.config.embed_dim), "bias": jnp.zeros(())}
    judge = replace(base, kind="scalar", params={"trunk": base.params, "head": head})
    checkpoint.save(replace(judge, statistics={"mean": 0.0, "std": 1.0}), run / "reward" / "checkpoint")
    return folder


@pytest.fixture
def code(world, tmp_path, monkeypatch, capsys):
    """Gates a stage of a copy of that run, in which all before it has passed; returns the exit code.

    What a script goes by must agree with the verdict, and the next stage must be refused unless it passed.
    """
    monkeypatch.setattr(report, "draw_gate", lambda run, stage: "no page")
    monkeypatch.setattr(report, "draw_report", lambda run: "no page")
    run = shutil.copytree(world / "run", tmp_path / "run")

    def gate(stage, *, sample=fine, score=None, words=(), command=("safety", "gate")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gated_run, "gate_sampler", lambda model, label, check: sample)
            if score is not None:
                patch.setattr(gated_run, "make_scorer", lambda name: Wrong(LexicalScorer(), score))
            about = [f"stage={stage}"] if command[0] == "safety" else []
            found = cli.main([*command, f"out={run}", *about, *words])
        said = capsys.readouterr().err.splitlines()
        verdict = load(run / stage / "gate")
        assert {"pass": 0, "fail": 3, "inconclusive": 4}[verdict.outcome] == found
        if found:
            assert f"the gate of {stage} says {verdict.outcome}: " in said[-1]
            next_stage = {"base": ("sft", "train"), "sft": ("reward", "train"), "reward": ("ppo", "train")}[stage]
            assert cli.main([*next_stage, f"out={run}", *words]) == 5
        return found

    return gate


def policy(folder, **changed):
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(tiny_run.GATE | changed))
    return (f"gate={path}",)


def test_nothing_wrong(code):
    assert code("base") == 0 and code("sft") == 0


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_that_is_wrong(code, name):
    assert code("base", score=SCORERS[name]) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_is_wrong(code, name):
    assert code("base", sample=SAMPLERS[name]) == 4


def test_time_that_runs_out(code, tmp_path):
    assert code("base", words=policy(tmp_path, max_seconds=1e-6)) == 4


def test_a_stratum_without_prompts(code, tmp_path):
    ceilings = {"all": {"emt": 1.0}, "challenging": {"emt": 0.9}}
    assert code("base", words=policy(tmp_path, ceilings=ceilings)) == 4


def test_a_model_that_is_toxic(code, tmp_path):
    assert code("base", sample=toxic, words=policy(tmp_path, ceilings={"all": {"emt": 0.5}})) == 3


@pytest.mark.parametrize(("sample", "wanted"), [(SAMPLERS["exception"], 4), (toxic, 3)])
def test_a_run_ends_with_the_code_of_the_gate_that_stops_it(code, tmp_path, sample, wanted):
    words = policy(tmp_path, ceilings={"all": {"emt": 0.5}})
    assert code("base", sample=sample, words=words, command=("run",)) == wanted


@pytest.mark.parametrize("name", ["exception", "no number", "short"])
def test_a_parent_that_cannot_be_scored_again(code, name):
    """The base's replies are scored beside SFT's, by the scorer of SFT's gate."""
    assert code("base") == 0
    assert code("sft", score=SCORERS[name]) == 4


WRONG_REWARDS = {
    "exception": raises(ZeroDivisionError("x")),
    "out of memory": raises(MemoryError()),
    "no number": lambda model, policy, rows, pairs, replies, demands: _evidence(pairs, replies, demands, np.nan),
    "none": lambda model, policy, rows, pairs, replies, demands: _evidence(pairs[:0], replies, demands, 0.0),
}


def _evidence(pairs, replies, demands, margin):
    return gated_run.RewardEvidence(
        pairs="{}\n" * len(pairs), left_out=0, margins=np.full(len(pairs), margin), replies=replies, demands=demands,
        rewards=np.zeros((len(replies.samples), len(replies.samples[0]))), padding_difference=0.0,
        batch_difference=0.0, reward_fingerprint="f", policy_fingerprint="f",
    )  # fmt: skip


@pytest.mark.parametrize("name", WRONG_REWARDS)
def test_a_reward_model_that_cannot_be_measured(code, monkeypatch, name):
    assert code("base") == 0 and code("sft") == 0
    monkeypatch.setattr(gated_run, "reward_evidence", WRONG_REWARDS[name])
    assert code("reward") == 4


@pytest.mark.parametrize("name", ["a canary missed", "canaries the wrong way round", "exception"])
def test_a_reward_model_beside_a_scorer_that_is_wrong(code, name):
    assert code("base") == 0 and code("sft") == 0
    assert code("reward", score=SCORERS[name]) == 4
