"""The same prompts as pictures and as speech: compared with the text, or said not to be."""

import json
from dataclasses import replace

import numpy as np
import pytest

from safety.clauses import combine
from safety.demands import Parity
from safety.evaluation import evaluate
from safety.gate import gate
from safety.parity import NotRun, evaluate_forms, parity
from safety.policy import GatePolicy, Limits
from safety.preconditions import needs
from training.digest import folder_digest
from training.errors import BadInput, GateFailed, GateInconclusive

SEES = Parity(neutral_picture=Limits(emt=0.1), picture_of_text=Limits(emt=0.1, toxic_fraction=0.1))


@pytest.fixture
def seeing(policy) -> GatePolicy:
    """The tests' policy, which compares two kinds of pictures with text."""
    return replace(policy, parity=SEES)


def form(sampler):
    """A sampler of texts as one of prompts in another form."""
    return lambda prompts, plan: sampler([prompt.text for prompt in prompts], plan)


@pytest.mark.parametrize(("toxic", "outcome"), [(0.0, "pass"), (0.1, "inconclusive"), (0.2, "fail")])
def test_a_gap_is_paired_and_bounded(sampler, scorer, prompts, seeing, toxic, outcome):
    """Polite as text; as a picture toxic once in so many prompts. Each toxic prompt adds .8 to the mean maximum."""
    evaluation = evaluate(sampler(), prompts, scorer, seeing)
    samplers = {"neutral_picture": form(sampler()), "picture_of_text": form(sampler(toxic))}
    clauses = {c.name: c for c in parity(evaluation, evaluate_forms(samplers, prompts, scorer, seeing), seeing)}
    assert clauses["parity/neutral_picture/emt"].outcome == "pass"
    clause = clauses["parity/picture_of_text/emt"]
    assert (clause.outcome, clause.measured) == (outcome, pytest.approx(0.8 * toxic, abs=1e-6))
    assert clauses["parity/picture_of_text/toxic_fraction"].measured == pytest.approx(toxic / 2)
    assert clauses["parity/speech"].outcome == "not applicable" and "NOT RUN" in clauses["parity/speech"].reason


def test_the_gap_is_that_of_the_same_prompt(sampler, scorer, prompts, seeing):
    """Toxic for the same prompts in both forms: no gap, and no doubt, though the prompts differ much."""
    evaluation = evaluate(sampler(0.5), prompts, scorer, seeing)
    forms = evaluate_forms(dict.fromkeys(SEES.demanded, form(sampler(0.5))), prompts, scorer, seeing)
    clause = parity(evaluation, forms, seeing)[0]
    assert clause.measured == 0 and clause.bound < 0.02


def test_a_form_that_was_not_tried_says_so(sampler, scorer, prompts, policy, seeing):
    """Neither the policy that asks for none nor the model that cannot see gets a pass."""
    evaluation = evaluate(sampler(), prompts, scorer, policy)
    blind = dict.fromkeys(SEES.demanded, NotRun("the model has no encoder of pictures"))
    for demands in (policy, seeing):
        clauses = parity(evaluation, evaluate_forms(blind, prompts, scorer, demands), demands)
        assert all(c.outcome == "not applicable" and c.reason.startswith("NOT RUN: ") for c in clauses)
        assert combine(clauses) == "inconclusive"  # of clauses of which none applies, nobody passes


def test_a_gate_compares_and_keeps_what_it_compared(sampler, scorer, prompts, seeing, checkpoint, tmp_path):
    samplers = {"neutral_picture": form(sampler()), "picture_of_text": NotRun("it reads no letters")}
    verdict = gate(sampler(), prompts, scorer, seeing, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint), forms=samplers)  # fmt: skip
    assert verdict.passed, verdict.reasons
    assert "parity.jsonl" in verdict.evidence
    rows = [json.loads(line) for line in (tmp_path / "gate" / "parity.jsonl").read_text().splitlines()]
    assert len(rows) == len(prompts) and {row["form"] for row in rows} == {"neutral_picture"}
    report = json.loads((tmp_path / "gate" / "report.json").read_text())["parity"]
    assert report["neutral_picture"]["differences"]["emt"]["estimate"] == 0
    assert report["picture_of_text"] == {"not_run": "it reads no letters"}


def raises(error):
    def sample(prompts, plan):
        raise error

    return sample


@pytest.mark.parametrize(
    "broken",
    [
        None,
        raises(TimeoutError("too late")),
        raises(BadInput("the sound own-0.wav does not exist")),
        lambda prompts, plan: [["x"] * plan.samples_per_prompt] * (len(prompts) - 1),
        lambda prompts, plan: [["x"] * (plan.samples_per_prompt - 1)] * len(prompts),
        lambda prompts, plan: [[None] * plan.samples_per_prompt] * len(prompts),
        lambda prompts, plan: [["not scored"] * plan.samples_per_prompt] * len(prompts),
    ],
)
def test_a_form_that_breaks_is_inconclusive(sampler, scorer, prompts, seeing, checkpoint, tmp_path, broken):
    """No sampler, errors, short counts, no texts, a score that is no number: exit code 4."""

    class Deaf(type(scorer)):
        def score(self, texts):
            found = super().score(texts)["toxicity"]
            return {"toxicity": np.where(np.array(texts) == "not scored", np.nan, found)}

    samplers = {"neutral_picture": form(sampler()), "picture_of_text": broken}
    verdict = gate(sampler(), prompts, Deaf(), seeing, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint), forms=samplers)  # fmt: skip
    with pytest.raises(GateInconclusive):
        verdict.raise_unless_passed()


def test_a_gap_fails_the_gate(sampler, scorer, prompts, seeing, checkpoint, tmp_path):
    verdict = gate(sampler(), prompts, scorer, seeing, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint),
                   forms=dict.fromkeys(SEES.demanded, form(sampler(1.0))))  # fmt: skip
    with pytest.raises(GateFailed, match="parity/neutral_picture/emt"):
        verdict.raise_unless_passed()


def test_a_policy_of_parity(policy):
    """From YAML's values and back; its margins take prompts like the others."""
    values = {"picture_of_text": {"emt": 0.05}, "speech": {"emt": 0.1}, "recordings": "speech"}
    read = GatePolicy.from_dict(policy.to_dict() | {"parity": values})
    assert read.parity == Parity(picture_of_text=Limits(emt=0.05), speech=Limits(emt=0.1), recordings="speech")
    assert GatePolicy.from_dict(read.to_dict()) == read and read.digest != policy.digest
    assert {need.name: need.prompts for need in needs(read)["all"]}["parity/picture_of_text/emt"] == 99


@pytest.mark.parametrize(
    "wrong",
    [{}, {"speech": {"emt": 0.1}}, {"picture_of_text": {"toxicity": 0.1}}, {"sound": {"emt": 0.1}}, [], {"speech": 3},
     {"picture_of_text": {"emt": 0.0}}],
)  # fmt: skip
def test_a_policy_that_is_none(policy, wrong):
    """Nothing demanded, speech without recordings, unknown fields, no limit at all."""
    with pytest.raises(BadInput):
        GatePolicy.from_dict(policy.to_dict() | {"parity": wrong})
