"""The verdicts in words, the clauses behind them, how the stages hang together, and what they cost."""

from typing import NamedTuple

from pipeline.marks import Table, number
from pipeline.page.record import TITLES, RunRecord, StageRecord
from safety.clauses import Clause
from safety.waiver import Waiver

OUTCOMES = {
    "pass": ("✓", "passed"),
    "fail": ("✗", "failed"),
    "inconclusive": ("?", "inconclusive"),
    "waived": ("!", "waived"),
    "not applicable": ("–", "not applicable"),
    "none": ("·", "not judged"),
}
_KINDS = {
    "integrity": "The measurement itself",
    "absolute": "Ceilings",
    "parent": "Against the parent stage",
    "base": "Against the base model",
    "category": "Categories",
    "set": "Further prompt sets",
    "unprompted": "Without a prompt",
    "parity": "As pictures and as speech",
    "drawings": "Pictures that it draws",
    "utility": "Still useful",
    "reward": "What it rewards",
    "invariance": "Same text, same score",
}
# Names of clauses, or of their parts, that say too little by themselves.
_NAMES = {
    "emt": "expected maximum",
    "canaries": "known sentences",
    "non_empty": "replies with a word",
    "mean_words": "length in words",
    "distinct_2": "distinct word pairs",
    "repetition": "replies ending in a loop",
    "size": "enough prompts",
    "refused": "refusals",
    "best_of_n": "its favourite replies",
    "fingerprint": "tokenizer and template",
}


class Line(NamedTuple):
    """One stage's verdict: its outcome ("none" without one), a sentence, the open clauses' reasons, a small print."""

    stage: str
    title: str
    outcome: str
    sentence: str
    reasons: tuple[str, ...]
    detail: str

    @property
    def symbol(self) -> str:
        """A sign that tells outcomes apart without colour."""
        return OUTCOMES[self.outcome][0]

    @property
    def word(self) -> str:
        """The outcome for a person."""
        return OUTCOMES[self.outcome][1]


class ClauseRow(NamedTuple):
    """A clause as the page shows it."""

    name: str
    outcome: str
    symbol: str
    word: str
    reason: str


class Link(NamedTuple):
    """A stage in the lineage: which bytes, from which parents, what its gate's verdict is chained to, who signed."""

    stage: str
    title: str
    origin: str
    digest: str | None
    verdict: Line
    verdict_digest: str | None
    chain: str
    signed_by: str | None
    unsigned: str


def headline(record: RunRecord) -> str:
    """One sentence on the whole run."""
    judged = [stage for stage in record.stages if stage.verdict is not None]
    failed, doubtful, waived = (
        [stage.title for stage in judged if stage.verdict is not None and stage.verdict.outcome == outcome]
        for outcome in ("fail", "inconclusive", "waived")
    )
    if failed or doubtful or waived:
        parts = [f"{_enumerated(failed)} failed"] if failed else []
        parts += [f"the gate of {_enumerated(doubtful)} could not decide"] if doubtful else []
        parts += [f"{_enumerated(waived)} did not pass and was waived"] if waived else []
        sentence = "; ".join(parts)
        return f"{sentence[0].upper()}{sentence[1:]}."
    if len(judged) == len(record.stages):
        return "Every stage passed its gate."
    if not judged:
        return "No stage of this run has been through its gate yet."
    missing = _enumerated([stage.title for stage in record.stages if stage.verdict is None])
    return f"{_enumerated([stage.title for stage in judged])} passed; there is no verdict on {missing} yet."


def run_answer(record: RunRecord) -> str:
    """Why a run stopped, in two sentences; "" if no gate stopped it."""
    stopped = (s for s in record.stages if s.verdict is not None and s.verdict.outcome in ("fail", "inconclusive"))
    stage = next(stopped, None)
    if stage is None or stage.verdict is None:
        return ""
    applying = [clause for clause in stage.verdict.clauses if clause.outcome != "not applicable"]
    open_ = [clause for clause in _worst_first(applying) if clause.outcome != "pass"]
    held = f"{len(open_)} of {len(applying)} clauses of the gate of {stage.title} do not hold"
    return f"{held}, and no stage may read its checkpoint. The first: {open_[0].reason.rstrip('.')}."


def gate_headline(stage: StageRecord) -> str:
    """The verdict on one stage as a headline."""
    outcome = "none" if stage.verdict is None else stage.verdict.outcome
    return {
        "pass": f"{stage.title} passed its gate.",
        "fail": f"{stage.title} failed its gate.",
        "inconclusive": f"The gate of {stage.title} could not decide.",
        "waived": f"{stage.title} did not pass its gate and was waived.",
        "none": f"There is no verdict on {stage.title}.",
    }[outcome]


def gate_answer(stage: StageRecord) -> str:
    """The expected maximum over all prompts, and against the parent, in one sentence; "" where it was not measured."""
    gate = stage.gate or {}
    try:
        level = gate["metrics"]["all"][gate["label"]]["emt"]
        sentence = f"Expected maximum toxicity is {number(level['estimate'])} over all prompts"
        moved = ((gate["differences"].get("parent") or {}).get("all") or {}).get("emt")
        if moved is None:
            return f"{sentence}."
        if moved["low"] <= 0 <= moved["high"]:
            return f"{sentence}; against its parent stage there is no measurable change."
        way = "less" if moved["estimate"] < 0 else "more"
        return f"{sentence}, {number(abs(moved['estimate']))} {way} than its parent stage’s."
    except (KeyError, TypeError, AttributeError):  # a reward model's, or one of another shape: see the notes
        return ""


def line(stage: StageRecord) -> Line:
    """The verdict of one stage in words."""
    verdict = stage.verdict
    if verdict is None:
        if stage.has_checkpoint:
            sentence = "There is a checkpoint, but no valid verdict about it; no next stage may read it."
        else:
            sentence = "The run has not come this far: there is neither a checkpoint nor a verdict."
        return Line(stage.name, stage.title, "none", sentence, (), "")
    applying = [clause for clause in verdict.clauses if clause.outcome != "not applicable"]
    held = sum(clause.outcome == "pass" for clause in applying)
    sentence = {
        "pass": f"All {len(applying)} clauses of its gate hold.",
        "fail": f"{held} of {len(applying)} clauses hold; the checkpoint itself breaks at least one:",
        "inconclusive": f"{held} of {len(applying)} clauses hold; the rest could not be decided:",
        "waived": f"{held} of {len(applying)} clauses hold; it is used all the same, on somebody’s word:",
    }[verdict.outcome]
    reasons = tuple(c.reason for c in _worst_first(applying) if c.outcome != "pass")
    if verdict.waiver is not None:
        said = {"fail": "failed"}.get(verdict.waiver.outcome, verdict.waiver.outcome)
        reasons = (f"Waived, because: {verdict.waiver.reason} The gate said: {said}.", *reasons)
    reasons = (*(_taint(waiver) for waiver in verdict.waivers), *reasons)
    detail = [f"profile {verdict.profile}", f"attempt {verdict.attempt}", *_size(stage)]
    return Line(stage.name, stage.title, verdict.outcome, sentence, reasons, ", ".join(detail))


def clauses(stage: StageRecord) -> list[tuple[str, list[ClauseRow]]]:
    """The clauses of a stage's gate by kind, in the gate's order."""
    kinds: dict[str, list[ClauseRow]] = {}
    for clause in stage.verdict.clauses if stage.verdict is not None else ():
        kind, _, rest = clause.name.partition("/")
        name = ", ".join(_NAMES.get(part, part.replace("_", " ")) for part in rest.split("/")) or kind
        row = ClauseRow(name, clause.outcome, *OUTCOMES[clause.outcome], clause.reason)
        kinds.setdefault(_KINDS.get(kind, kind), []).append(row)
    return list(kinds.items())


def lineage(record: RunRecord) -> list[Link]:
    """The stages in order, each with its digest and with whose verdict its own verdict names."""
    by_digest = {stage.verdict_digest: stage.title for stage in record.stages if stage.verdict_digest}
    origins = {"base": "what the run starts from", "sft": "from the base model", "reward": "from SFT",
               "ppo": "from SFT, against the reward model"}  # fmt: skip
    links = []
    for stage in record.stages:
        verdict, chain = stage.verdict, ""
        if verdict is not None:
            named = (verdict.parent_verdict, verdict.base_verdict, verdict.reward_verdict)
            known = dict.fromkeys(by_digest.get(digest, "") for digest in named if digest)
            stranger = "a verdict that is not in this run folder"
            bound = [f"the verdict on {title}" if title else stranger for title in known]
            chain = f"bound to {_enumerated(bound)}" if bound else "bound to no other verdict"
        if stage.name == "base":
            chain = ""
        digest = verdict.checkpoint if verdict is not None else _summary_digest(record, stage.name)
        links.append(
            Link(
                stage.name, stage.title, origins[stage.name], digest, line(stage), stage.verdict_digest, chain,
                stage.signed_by, stage.unsigned,
            )
        )  # fmt: skip
    return links


def costs(record: RunRecord) -> Table | None:
    """Seconds and memory, by stage, as far as the summary tells."""
    summary = record.summary or {}
    stages = summary.get("stages") or {}
    rows = [(TITLES[name], _duration(stages[name].get("seconds"))) for name in TITLES if name in stages]
    if not rows:
        return None
    rows.append(("Whole run", _duration(summary.get("seconds"))))
    memory = summary.get("peak_memory_bytes")
    if memory:
        rows.append(("Peak memory", f"{memory / 2**30:.2f} GiB"))
    return Table(("stage", "used"), tuple(rows))


def _taint(waiver: Waiver) -> str:
    return f"Made from a checkpoint of {TITLES.get(waiver.stage, waiver.stage)} whose gate was waived: {waiver.reason}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"


def _summary_digest(record: RunRecord, name: str) -> str | None:
    stages = (record.summary or {}).get("stages")
    entry = stages.get(name) if isinstance(stages, dict) else None
    return entry.get("checkpoint") if isinstance(entry, dict) else None


def _worst_first(rows: list[Clause]) -> list[Clause]:
    return sorted(rows, key=lambda clause: ("fail", "inconclusive", "pass").index(clause.outcome))


def _size(stage: StageRecord) -> list[str]:
    """How much was measured."""
    gate = stage.gate or {}
    prompts, counts = gate.get("prompts"), gate.get("counts")
    if isinstance(prompts, dict) and isinstance(prompts.get("counts"), dict):
        return [f"{prompts['counts'].get('all')} prompts with {prompts.get('samples_per_prompt')} replies each"]
    if isinstance(counts, dict):
        replies = f"{counts.get('prompts')} prompts with {counts.get('replies_per_prompt')} replies each"
        return [f"{counts.get('pairs')} pairs", replies]
    return []


def _enumerated(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
