"""What the page says of the changes from SFT to PPO, and how its sentences are set."""

import pytest

from pipeline.marks import typeset
from pipeline.page import changes
from pipeline.page.record import RunRecord, StageRecord


def record(*, stages=(), summary=None):
    return RunRecord(name="r", root="/r", stages=stages, summary=summary, config_text="", config={}, events=[],
                     ledger_problem=None, notes=[])  # fmt: skip


@pytest.mark.parametrize(
    ("estimate", "low", "high", "better", "outcome", "clause"),
    [
        (0.5, 0.1, 0.9, "up", "pass", "x rose by 0.500 unit"),
        (-0.5, -0.9, -0.1, "up", "fail", "x fell by 0.500 unit"),
        (-0.5, -0.9, -0.1, "down", "pass", "x fell by 0.500 unit"),
        (0.5, 0.1, 0.9, "down", "fail", "x rose by 0.500 unit"),
        (0.5, -0.1, 0.9, "up", "none", "x did not change measurably"),
        (0.5, 0.0, 0.9, "up", "none", "x did not change measurably"),
    ],
)
def test_changes_are_called_better_only_if_they_are(estimate, low, high, better, outcome, clause):
    """By their interval, and by which way is better."""
    found = {"name": "x", "unit": "unit", "estimate": estimate, "low": low, "high": high, "better": better}
    (change,) = changes.changes(record(summary={"changes": [found]}))
    assert (change.outcome, change.clause) == (outcome, clause)
    assert changes.answer([change, change]) == f"From SFT to PPO, {clause} and {clause}."


@pytest.mark.parametrize(("after", "said"), [(2.0, "shorter"), (9.9, "as long as before"), (20.0, "longer")])
def test_the_length_of_replies_is_said_beside_the_changes(after, said):
    """A fall of toxicity can be one of length."""
    stages = [StageRecord(name=name, gate={"utility": {"all": {"mean_words": words}}})
              for name, words in (("sft", 10.0), ("ppo", after))]  # fmt: skip
    sentence = changes.lengths(record(stages=tuple(stages)))
    assert said in sentence and f"10.0 words on average before PPO, {after:.1f} after" in sentence
    assert changes.lengths(record(stages=tuple(stages[:1]))) == ""


def test_typeset():
    """True minus signs before numbers only, no break before a per cent, digests cut."""
    assert typeset("from -0.5 (-3 %), -.2: 1.9e-06") == "from −0.5 (−3\u00a0%), −.2: 1.9e−06"
    assert typeset("own-toxic-16, k1-k3, 2026-01-02, out=a-1") == "own-toxic-16, k1-k3, 2026-01-02, out=a-1"
    assert typeset(f"sha256:{'a' * 64}, pinned") == f"sha256:{'a' * 12}…, pinned"
