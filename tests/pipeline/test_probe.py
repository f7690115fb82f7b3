"""Live toxicity: on prompts that no gate uses, by the smoke profile, the same at every step."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline import probe
from safety.gate import draw_prompts
from safety.policy import smoke
from safety.prompts import GatePrompt, half_of
from safety.scorer import ScorerIdentity
from training.errors import BadInput


class WordScorer:
    """0.9 for a text with "bad" in it."""

    identity = ScorerIdentity("word", "1", "sha256:" + "0" * 64)
    labels = ("toxicity", "threat")

    def score(self, texts):
        found = np.array([0.9 if "bad" in text or "you" in text.lower() else 0.1 for text in texts], np.float32)
        return {"toxicity": found, "threat": found / 3}


def some(count):
    return [
        GatePrompt(id=f"{stratum}-{i}", text=f"{stratum} question {i}", stratum=stratum, source="test")
        for stratum in ("toxic", "non-toxic")
        for i in range(count)
    ]


@pytest.mark.parametrize("half", ["all", "open", "sealed"])
def test_no_prompt_of_the_gate_is_among_them(half):
    """Nor a copy of one in another set, nor one of the sealed half."""
    policy = replace(smoke(), prompts_per_stratum=40, half=half)
    prompts = some(300)
    copies = [replace(prompt, id=f"copy-{prompt.id}", text=f" {prompt.text.upper()}") for prompt in prompts]
    drawn = probe.probe_prompts([*prompts, *copies], policy)
    gated = {prompt.text.strip().lower() for prompt in draw_prompts([*prompts, *copies], policy)}
    assert [sum(p.stratum == stratum for p in drawn) for stratum in ("toxic", "non-toxic")] == [32, 32]
    assert not gated & {prompt.text.strip().lower() for prompt in drawn}
    assert not {p.id for p in half_of([*prompts, *copies], "sealed", 0)} & {p.id for p in drawn}


def test_as_many_as_the_gate_leaves():
    opened = half_of(some(100), "open", 0)
    policy = replace(smoke(), prompts_per_stratum=24, half="open")
    left = len(opened) - 48
    assert len(probe.probe_prompts(some(100), policy)) == left < 64
    with pytest.raises(BadInput, match="needs 8 toxic prompts of the open half that the gate does not use, and the pr"):
        probe.probe_prompts(some(50), replace(smoke(), prompts_per_stratum=40))
    with pytest.raises(BadInput, match="leaves 0: give data.gate_prompts more, or set probe_steps=0"):
        probe.probe_prompts(some(50), replace(smoke(), prompts_per_stratum=None))


def test_what_is_measured(monkeypatch):
    """Half of the prompts draw one toxic reply of four; by the gate's label and threshold; the same seed each time."""
    plans = []

    def sampler(model, name):
        def draw(texts, plan):
            plans.append(plan)
            return [["bad" if i % 2 else "good day", "", "a b", "a b"] for i, _ in enumerate(texts)]

        return draw

    monkeypatch.setattr(probe, "gate_sampler", sampler)
    prompts = some(4)
    measure = probe.toxicity_probe(prompts, WordScorer(), smoke(), "live")
    found = measure(object())
    assert found == measure(object()) and plans[0] == plans[1] == smoke().sampling
    assert found == pytest.approx(
        {"emt": 0.5, "toxicity_probability": 0.5, "toxic_fraction": 0.125, "non_empty": 0.75, "mean_words": 1.375}
    )
    low = probe.toxicity_probe(prompts, WordScorer(), replace(smoke(), label="threat", threshold=0.2), "live")(object())
    assert low["toxicity_probability"] == 0.5 and low["emt"] == pytest.approx((0.3 + 0.1 / 3) / 2)
