"""A release names what it was measured with and leaves no category and kind of prompts out; else nothing is sampled."""

from dataclasses import replace

import numpy as np
import pytest

from safety.demands import ExtraSet
from safety.gate import gate
from safety.policy import Limits, release
from safety.prompts import GatePrompt, prompts_digest


class EveryLabel:
    """A scorer with a second label, which nothing has."""

    labels = ("toxicity", "threat")

    def __init__(self, scorer):
        self.identity, self._scorer = scorer.identity, scorer

    def score(self, texts):
        """Return both labels' scores."""
        return self._scorer.score(texts) | {"threat": np.zeros(len(texts), np.float32)}


SETS = {
    "red": ExtraSet(source="red.jsonl", ceilings=Limits(emt=1.0)),
    "harmless": ExtraSet(source="harmless.jsonl", max_refusals=1.0),
}


@pytest.fixture
def prompts(prompts):
    """With ten of each further set."""
    further = [GatePrompt(id=f"{s}/{i}", text=f"{s} {i}", stratum=s, source="test") for s in SETS for i in range(10)]
    return (*prompts, *further)


@pytest.fixture
def judged(policy, prompts, sampler, checkpoint, tmp_path):
    """The verdict by a policy with a ceiling on threats and two further sets."""

    def run(scorer, **changes):
        demands = replace(policy, category_ceilings={"threat": 0.1}, **{"sets": SETS} | changes)
        return gate(sampler(), prompts, scorer, demands, stage="base", checkpoint="sha256:" + "2" * 64,
                    folder=tmp_path / "gate")  # fmt: skip

    return run


def test_a_release_that_pins_nothing(judged, scorer, prompts):
    """The verdict tells the digests, pinned by which it passes."""
    full = EveryLabel(scorer)
    loose = judged(full, for_release=True)
    assert loose.outcome == "inconclusive" and "samples.jsonl" not in loose.evidence
    pins = {"pinned_prompts": prompts_digest(prompts), "pinned_scorer": scorer.identity.digest}
    (reason,) = loose.reasons
    assert all(f"{name}: {digest}" in reason for name, digest in pins.items())
    for name in pins:
        one = judged(full, for_release=True, **{name: pins[name]})
        assert one.outcome == "inconclusive" and name not in one.reasons[0]
    assert judged(full, for_release=True, **pins).passed
    assert judged(full).passed, "an everyday gate need not pin"


def test_a_release_by_a_scorer_without_a_label(judged, scorer, prompts):
    """Not applicable every day, and no release."""
    pins = {"pinned_prompts": prompts_digest(prompts), "pinned_scorer": scorer.identity.digest}
    lacking = judged(scorer, for_release=True, **pins)
    assert lacking.outcome == "inconclusive"
    assert "the policy limits threat, which the scorer word does not score" in lacking.reasons[0]
    assert judged(scorer, **pins).passed


@pytest.mark.parametrize(
    ("sets", "lacking"),
    [
        ({}, "red-team (ceilings or min_refusals) and over-refusal (max_refusals): name"),
        ({"red": SETS["red"]}, "no set of the kind over-refusal (max_refusals): name"),
        ({"harmless": SETS["harmless"]}, "no set of the kind red-team (ceilings or min_refusals): name"),
        # Prompts that should be answered are no red team, whatever else is asked of the replies.
        ({"harmless": replace(SETS["harmless"], ceilings=Limits(emt=1.0))}, "no set of the kind red-team"),
    ],
)
def test_a_release_without_a_kind_of_prompts(judged, scorer, prompts, sets, lacking):
    pins = {"pinned_prompts": prompts_digest(prompts), "pinned_scorer": scorer.identity.digest}
    verdict = judged(EveryLabel(scorer), for_release=True, sets=sets, **pins)
    assert verdict.outcome == "inconclusive" and "samples.jsonl" not in verdict.evidence
    assert lacking in verdict.reasons[0] and "max_refusals: 0.1}}" in verdict.reasons[0]


def test_a_release_with_prompts_that_should_be_refused(judged, scorer, prompts):
    """Those are a red team, too."""
    sets = SETS | {"red": ExtraSet(source="red.jsonl", min_refusals=0.0)}
    pins = {"pinned_prompts": prompts_digest(prompts), "pinned_scorer": scorer.identity.digest}
    assert judged(EveryLabel(scorer), for_release=True, sets=sets, **pins).passed


def test_the_profile_is_for_a_release():
    policy = release()
    assert policy.for_release and policy.half == "sealed" and policy.category_ceilings
