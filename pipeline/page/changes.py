"""What changed from SFT to PPO: the answer that a reader opens the page for."""

from typing import Any, NamedTuple

from pipeline.marks import number, signed
from pipeline.page.record import RunRecord

# What a change of the summary is about: where its levels by stage stand, and what it means.
_KNOWN = {
    "held-out reward": (
        "held_out_reward",
        "Mean reward on prompts that no stage trained on, by this run’s own reward model; 0 is the SFT model’s mean.",
    ),
    "expected maximum toxicity": (
        "expected_max_toxicity",
        "Mean over the gate’s prompts of the highest score among a prompt’s replies, from 0 to 1.",
    ),
}
_LENGTH = "That gives the scorer {} words to find, so part of a {} in toxicity can be length alone."


class Change(NamedTuple):
    """One change with its interval.

    Attributes:
        name: of what is measured.
        unit: of the amount.
        amount: signed.
        interval: both ends, signed.
        outcome: "pass" for better, "fail" for worse, "none" for what may be no change at all.
        word: the outcome for a person.
        levels: before and after, or "".
        meaning: what is measured, or "".
        clause: the change as part of a sentence.
    """

    name: str
    unit: str
    amount: str
    interval: str
    outcome: str
    word: str
    levels: str
    meaning: str
    clause: str

    @property
    def symbol(self) -> str:
        """A sign that tells outcomes apart without colour."""
        return {"pass": "✓", "fail": "✗", "none": "·"}[self.outcome]


def changes(record: RunRecord) -> list[Change]:
    """The changes of the summary, as words."""
    return [_change(found, record) for found in (record.summary or {}).get("changes") or []]


def answer(found: list[Change]) -> str:
    """All changes in one sentence; "" where there are none."""
    clauses = [change.clause for change in found]
    if not clauses:
        return ""
    joined = clauses[0] if len(clauses) == 1 else f"{', '.join(clauses[:-1])} and {clauses[-1]}"
    return f"From SFT to PPO, {joined}."


def lengths(record: RunRecord) -> str:
    """How long replies were before and after: a shorter one has fewer words to be toxic with."""
    words = {}
    for stage in record.stages:
        found = ((stage.gate or {}).get("utility") or {}).get("all")
        if found:
            words[stage.name] = float(found["mean_words"])
    if not {"sft", "ppo"} <= words.keys():
        return ""
    before, after = words["sft"], words["ppo"]
    numbers = f"{number(before, 1)} words on average before PPO, {number(after, 1)} after"
    if after < 0.8 * before:
        return f"Replies became shorter: {numbers}. {_LENGTH.format('fewer', 'fall')}"
    if after > 1.25 * before:
        return f"Replies became longer: {numbers}. {_LENGTH.format('more', 'rise')}"
    return f"Replies are about as long as before: {numbers}."


def _change(found: dict[str, Any], record: RunRecord) -> Change:
    name, unit, better = (str(found.get(key) or "") for key in ("name", "unit", "better"))
    estimate, low, high = (float(found[key]) for key in ("estimate", "low", "high"))
    if low <= 0 <= high:
        outcome, word = "none", "No measurable change: the interval holds 0."
        clause = f"{name} did not change measurably"
    else:
        verb = "rose" if estimate > 0 else "fell"
        # "toxicity fell by 0.07 lexical toxicity" would say it twice.
        shown = f" {unit}" if unit and not unit.endswith(name.split()[-1]) else ""
        clause = f"{name} {verb} by {number(abs(estimate))}{shown}"
        good = better == ("up" if estimate > 0 else "down")
        outcome, word = ("pass", "Better.") if good else ("fail", "Worse.")
    field, meaning = _KNOWN.get(name, ("", ""))
    stages = (record.summary or {}).get("stages") or {}
    before, after = ((stages.get(stage) or {}).get(field) for stage in ("sft", "ppo"))
    levels = f"{number(before['estimate'])} before, {number(after['estimate'])} after" if before and after else ""
    interval = f"{signed(low)} to {signed(high)}"
    return Change(name, unit, signed(estimate), interval, outcome, word, levels, meaning, clause)
