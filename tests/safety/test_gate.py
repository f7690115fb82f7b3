"""Whole gates: outcomes, files, re-scoring of the parent, and every way to break one."""

import json
from dataclasses import replace

import numpy as np
import pytest

from safety import LexicalScorer, load, packaged_prompts, verdict_digest
from safety.evidence import load_evaluation
from safety.gate import draw_prompts, gate
from safety.policy import Limits, smoke
from training.digest import folder_digest
from training.errors import BadInput, GateFailed, GateInconclusive


@pytest.fixture
def run(tmp_path, prompts, scorer, policy, checkpoint):
    """Gate a stage of a run; what is not given is the fixtures'."""

    def run(stage, sampler, **changes):
        given = {"prompts": prompts, "scorer": scorer, "policy": policy, "folder": tmp_path / stage} | changes
        return gate(sampler, given.pop("prompts"), given.pop("scorer"), given.pop("policy"),
                    stage=stage, checkpoint=folder_digest(checkpoint), **given)  # fmt: skip

    return run


def test_pass_chain_and_files(run, sampler, tmp_path):
    """A base passes, then its child; the child's verdict names the parent's; the files say what was measured."""
    base = run("base", sampler(0.1))
    assert base.passed, base.reasons
    child = run("sft", sampler(0.1), parent_gate=tmp_path / "base", base_gate=tmp_path / "base")
    assert child.passed, child.reasons
    assert child.parent_verdict == child.base_verdict == verdict_digest(tmp_path / "base")
    assert load(tmp_path / "sft") == child
    lines = (tmp_path / "sft" / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 200
    assert set(json.loads(lines[0])) == {"id", "text", "stratum", "source", "samples", "scores"}
    report = json.loads((tmp_path / "sft" / "report.json").read_text())
    emt = report["metrics"]["all"]["toxicity"]["emt"]
    assert emt["estimate"] == pytest.approx(0.18)
    assert emt["low"] < emt["estimate"] < emt["upper_bound"] < emt["high"]
    assert emt["sd"] == pytest.approx(np.std([0.9] * 20 + [0.1] * 180, ddof=1))
    assert report["metrics"]["toxic"]["toxicity"]["cdf_of_maximum"][-1] == [1.0, 1.0]
    assert report["differences"]["parent"]["all"]["emt"]["estimate"] == 0
    assert report["utility"]["all"]["non_empty"] == 1


def test_same_run_same_bytes(run, sampler, tmp_path):
    """No clock time, no paths: the verdict of the same gate is the same file."""
    for place in ("one", "two"):
        run("base", sampler(0.1), folder=tmp_path / place)
    for name in ("verdict.json", "report.json", "samples.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize(
    ("rate", "outcome", "error"), [(1 / 6, "inconclusive", GateInconclusive), (1 / 3, "fail", GateFailed)]
)
def test_not_passing(run, sampler, rate, outcome, error):
    """Undecided or toxic: the reasons hold the numbers, and the exit code follows."""
    verdict = run("base", sampler(rate))
    assert verdict.outcome == outcome
    assert "toxicity" in verdict.reasons[0] and "0.2" in verdict.reasons[0]
    with pytest.raises(error):
        verdict.raise_unless_passed()


def test_worse_than_the_parent_fails(run, sampler, tmp_path, policy):
    """Under the ceiling, yet more toxic than its parent allows."""
    run("base", sampler(0.0))
    lenient = replace(policy, ceilings={"all": Limits(emt=0.9)})
    verdict = run("sft", sampler(0.2), policy=lenient, parent_gate=tmp_path / "base", base_gate=tmp_path / "base")
    assert verdict.outcome == "fail"
    assert "parent/all/emt" in verdict.reasons[0]


def test_missing_references_are_inconclusive(run, sampler, tmp_path):
    """No stage but the first goes without parent and base."""
    assert run("sft", sampler()).outcome == "inconclusive"
    run("base", sampler())
    assert run("sft", sampler(), parent_gate=tmp_path / "base").outcome == "inconclusive"
    assert run("sft", sampler(), parent_gate=tmp_path / "no", base_gate=tmp_path / "base").outcome == "inconclusive"


def _raises(texts, plan):
    raise RuntimeError("out of memory")


class _Broken:
    """A scorer that returns what it is given to return."""

    def __init__(self, scorer, wrong):
        self.identity, self.labels, self.wrong = scorer.identity, scorer.labels, wrong

    def score(self, texts):
        return self.wrong(texts)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda texts: {"toxicity": np.full(len(texts), np.nan, np.float32)},
        lambda texts: {"toxicity": np.zeros(len(texts) - 1, np.float32)},
        lambda texts: {"toxicity": np.full(len(texts), 2, np.float32)},
        lambda texts: {"toxicity": np.zeros(len(texts), np.float32)},  # calls everything clean: the canaries notice
        lambda texts: {},
        lambda texts: None,
        lambda texts: 1 / 0,
    ],
)
def test_a_broken_scorer_never_passes(run, sampler, scorer, wrong):
    """NaN, short, out of range, blind, nothing, an exception."""
    assert run("base", sampler(), scorer=_Broken(scorer, wrong)).outcome == "inconclusive"


@pytest.mark.parametrize("wrong", [_raises, lambda t, p: [], lambda t, p: None, lambda t, p: [["x"]] * len(t)])
def test_a_broken_sampler_never_passes(run, wrong, tmp_path):
    """An exception or a short count ends in a verdict that says so."""
    verdict = run("base", wrong)
    assert verdict.outcome == "inconclusive" and "broke" in verdict.reasons[0]
    assert load(tmp_path / "base") == verdict


def test_too_few_prompts_to_draw(prompts, policy):
    """A usage error, found before anything is sampled, and not a verdict."""
    assert set(draw_prompts(prompts, policy)) == set(prompts)
    with pytest.raises(BadInput, match="wanted 100"):
        draw_prompts(prompts[:150], policy)


def _edit(path, change):
    path.write_text(change(path.read_text()))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("samples.jsonl", lambda text: text.replace("fine", "good", 1)),
        ("samples.jsonl", lambda text: text.split("\n", 1)[1]),
        ("samples.jsonl", lambda text: ""),
        ("verdict.json", lambda text: "{}"),
        ("verdict.json", lambda text: text.replace('"seed": 0', '"seed": 1')),
    ],
)
def test_a_tampered_parent_is_not_compared_with(run, sampler, tmp_path, name, change):
    """The parent's evidence must be what its verdict attests."""
    run("base", sampler())
    _edit(tmp_path / "base" / name, change)
    verdict = run("sft", sampler(), parent_gate=tmp_path / "base", base_gate=tmp_path / "base")
    assert verdict.outcome == "inconclusive"


def test_a_parent_that_did_not_pass_is_no_reference(run, sampler, tmp_path):
    """A failed parent would make any child look good."""
    run("base", sampler(1 / 3))
    verdict = run("sft", sampler(), parent_gate=tmp_path / "base", base_gate=tmp_path / "base")
    assert verdict.outcome == "inconclusive" and "did not pass" in verdict.reasons[0]


def test_the_parent_is_scored_again(run, sampler, scorer, tmp_path, policy):
    """Another scorer re-scores the stored texts; the same scorer must reproduce the stored scores."""
    run("base", sampler(0.1))
    shifted = _Broken(scorer, lambda texts: {"toxicity": scorer.score(texts)["toxicity"] * np.float32(0.5)})
    with pytest.raises(GateInconclusive, match="again"):
        load_evaluation(tmp_path / "base", shifted, policy)
    shifted.identity = scorer.identity._replace(version="2")
    again = load_evaluation(tmp_path / "base", shifted, policy)
    assert again.scores["toxicity"].max() == pytest.approx(0.45)
    with pytest.raises(GateInconclusive, match="sampled with"):
        load_evaluation(tmp_path / "base", scorer, replace(policy, temperature=0.5))


def test_real_scorer_and_packaged_prompts(run):
    """The embedded defaults fit together in the smallest preset."""
    lines = ("Sure, I can help you with that today.", "The weather is nice and the garden looks green.")

    def sample(texts, plan):
        return [[f"{lines[(i + s) % 2]} {i} {s}" for s in range(plan.samples_per_prompt)] for i in range(len(texts))]

    verdict = run("base", sample, prompts=draw_prompts(packaged_prompts(), smoke()),
                  scorer=LexicalScorer(), policy=smoke())  # fmt: skip
    assert verdict.passed, verdict.reasons
    assert any("lexical toxicity" in clause.reason for clause in verdict.clauses)
