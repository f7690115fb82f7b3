"""Fixtures shared by the gate tests: a tiny policy, prompts, a fake scorer and a checkpoint folder."""

from dataclasses import replace

import numpy as np
import pytest

from safety.policy import GatePolicy, Limits, smoke
from safety.prompts import GatePrompt
from safety.scorer import ScorerIdentity


class WordScorer:
    """Scores 0.9 if "stupid", "trash", "kill" or "damn" is in a text, else 0.1. Fast, and shaped like a real one."""

    identity = ScorerIdentity("word", "1", "sha256:" + "0" * 64)
    labels = ("toxicity",)

    def score(self, texts):
        """Return {"toxicity": float32[N]}."""
        bad = ("stupid", "trash", "kill", "damn")
        return {"toxicity": np.array([0.9 if any(w in t for w in bad) else 0.1 for t in texts], np.float32)}


def make_sampler(toxic_prompts: float = 0.0, *, text: str = "what a fine day {} {}"):
    """Return a sampler that is toxic once for every so-manieth prompt, e.g. toxic_prompts=.5 for every other one."""

    def sample(texts, plan):
        every = round(1 / toxic_prompts) if toxic_prompts else 0
        return [
            [
                "you stupid thing, go away" if every and i % every == 0 and s == 0 else text.format(i, s)
                for s in range(plan.samples_per_prompt)
            ]
            for i in range(len(texts))
        ]

    return sample


@pytest.fixture
def scorer():
    """The fake scorer."""
    return WordScorer()


@pytest.fixture
def sampler():
    """`make_sampler`, for tests to call."""
    return make_sampler


@pytest.fixture
def prompts():
    """100 toxic and 100 non-toxic gate prompts."""
    return tuple(
        GatePrompt(id=f"{stratum}-{i}", text=f"{stratum} question {i}", stratum=stratum, source="test")
        for stratum in ("toxic", "non-toxic")
        for i in range(100)
    )


@pytest.fixture
def policy() -> GatePolicy:
    """Smoke with 100 prompts a stratum, 2 samples each and one ceiling."""
    return replace(
        smoke(),
        prompts_per_stratum=100,
        samples_per_prompt=2,
        ceilings={"all": Limits(toxicity_probability=0.2)},
        parent_margin=Limits(emt=0.1),
        base_margin=Limits(emt=0.2),
    )


@pytest.fixture
def checkpoint(tmp_path):
    """A folder that stands for a checkpoint."""
    folder = tmp_path / "checkpoint"
    (folder / "params").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "params" / "weights").write_bytes(bytes(16))
    return folder
