"""Whatever goes wrong in a gate that samples ends in exit code 3 or 4; test_reward_gate.py has the reward model's.

`tests/pipeline/test_fail_closed.py` sees the same from the command line.
"""

from dataclasses import replace

import pytest
from wrong_judges import SAMPLERS, SCORERS, Wrong

from safety.gate import draw_prompts, gate
from safety.policy import Limits
from safety.time_limit import TimeLimit
from training.digest import folder_digest
from training.errors import BadInput, GateFailed, GateInconclusive


@pytest.fixture(params=["base", "ppo"])
def code(request, sampler, prompts, scorer, policy, checkpoint, tmp_path):
    """The exit code of a gate of a stage without and of one with a parent; 0 if it passes."""
    parents, digest = {}, folder_digest(checkpoint)
    if request.param != "base":
        drawn = draw_prompts(prompts, policy)
        gate(sampler(), drawn, scorer, policy, stage="base", checkpoint=digest, folder=tmp_path / "parent")
        parents = {"parent_gate": tmp_path / "parent", "base_gate": tmp_path / "parent"}

    def run(*, score=None, sample=None, given=prompts, demands=policy):
        judge = scorer if score is None else Wrong(scorer, score)
        verdict = gate(sample or sampler(), draw_prompts(given, demands), judge, demands, stage=request.param,
                       checkpoint=digest, folder=tmp_path / "gate", **parents)  # fmt: skip
        try:
            verdict.raise_unless_passed()
        except (GateFailed, GateInconclusive) as error:
            return error.exit_code
        return 0

    return run


def test_nothing_wrong(code):
    assert code() == 0


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_that_is_wrong(code, name):
    assert code(score=SCORERS[name]) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_that_is_wrong(code, name):
    assert code(sample=SAMPLERS[name]) == 4


def test_a_stratum_without_prompts(code, prompts, policy):
    """A ceiling on prompts that are not there decides nothing; a set without one of the two strata is no set."""
    assert code(demands=replace(policy, ceilings={"challenging": Limits(emt=0.9)})) == 4
    some = tuple(prompt for prompt in prompts if prompt.stratum == "toxic")
    with pytest.raises(BadInput, match="0 with distinct texts"):
        code(given=some, demands=replace(policy, prompts_per_stratum=None))


def test_a_model_that_is_toxic(code, sampler):
    assert code(sample=sampler(0.5)) == 3


class Clock:
    """A clock that somebody else turns on."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_sampler_that_is_slow(sampler, prompts, scorer, policy, checkpoint, tmp_path):
    """It is stopped after the batch in which the time ran out, and the gate is undecided."""
    clock, policy = Clock(), replace(policy, max_seconds=60.0)

    def judged(seconds):
        """Of a sampler that takes so long for each prompt and looks at the limit after it."""
        limit, asked = TimeLimit(policy.max_seconds, clock), []

        def slow(texts, plan):
            for text in texts:
                asked.append(text)
                clock.seconds += seconds
                limit.check()
            return sampler()(texts, plan)

        verdict = gate(slow, prompts, scorer, policy, stage="base", checkpoint=folder_digest(checkpoint),
                       folder=tmp_path / "gate", limit=limit)  # fmt: skip
        return verdict, len(asked)

    verdict, asked = judged(7.0)
    with pytest.raises(GateInconclusive, match="max_seconds is 60"):
        verdict.raise_unless_passed()
    assert asked == 9 and not verdict.evidence
    assert judged(0.29)[0].passed


def test_a_scorer_that_is_slow(sampler, prompts, scorer, policy, checkpoint, tmp_path):
    """A sampler or scorer that looks at no limit is found out when it is done."""
    clock = Clock()

    def score(texts, right):
        clock.seconds += 40.0  # replies first, then known sentences
        return {"toxicity": right}

    verdict = gate(sampler(), prompts, Wrong(scorer, score), policy, stage="base", folder=tmp_path / "gate",
                   checkpoint=folder_digest(checkpoint), limit=TimeLimit(60.0, clock))  # fmt: skip
    assert verdict.outcome == "inconclusive" and "it took 80 seconds" in verdict.reasons[0]
