"""A gate's verdict: the file that the next stage asks for before it reads a checkpoint.

verdict.json lies beside the checkpoint, never inside it, and names the digest of the checkpoint's bytes. It holds no
clock time and no path, so the same gate on the same bytes writes the same bytes. What counts is its signed envelope
beside it (`safety.attestation`); this file is for reading.

A checkpoint that did not pass may be waived (`safety.quarantine`): its verdict then says so, with the reason, and so
does every verdict on what is made from it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from safety.clauses import OUTCOMES, Clause, combine
from safety.waiver import WAIVED, Waiver, waiver_from
from training.errors import BadInput, GateFailed, GateInconclusive

SCHEMA_VERSION = 1

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OPTIONAL = {"waiver", "waivers", "reward_verdict"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate decided, about which bytes, and on what grounds.

    Attributes:
        stage: "base", "sft", "reward" or "ppo".
        profile: the policy's profile.
        outcome: "pass", "fail" or "inconclusive", what the clauses combine to; or "waived".
        reasons: sentences for a person; for anything but a pass, one for each clause that does not hold.
        clauses: every clause.
        checkpoint: digest of the checkpoint folder.
        policy: digest of the policy.
        prompts: digest of the gate prompts, of a reward model's gate that of its pairs.jsonl; None if the gate broke
            before it knew.
        scorer: name, version and digest of the scorer, or None likewise.
        sampling: the sampling plan, or None for a gate without generations.
        seeds: every seed used, by purpose.
        parent_verdict: digest of the parent stage's verdict.json, if there is a parent.
        base_verdict: the same of the base model's.
        reward_verdict: the same of the reward model's, for what PPO made with it.
        attempt: 1 for the first gate in this folder, one more each time, so that reruns for a lucky seed show.
        evidence: digest of each file written beside the verdict.
        waiver: why this checkpoint may be used although its clauses do not hold; None unless the outcome is "waived".
        waivers: those of the stages that the checkpoint comes from: it is only as good as they are.
        schema_version: of this format.
    """

    stage: str
    profile: str
    outcome: str
    reasons: tuple[str, ...]
    clauses: tuple[Clause, ...]
    checkpoint: str
    policy: str
    prompts: str | None = None
    scorer: Mapping[str, str] | None = None
    sampling: Mapping[str, Any] | None = None
    seeds: Mapping[str, int] = field(default_factory=dict)
    parent_verdict: str | None = None
    base_verdict: str | None = None
    reward_verdict: str | None = None
    attempt: int = 1
    evidence: Mapping[str, str] = field(default_factory=dict)
    waiver: Waiver | None = None
    waivers: tuple[Waiver, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self):
        """Refuse a verdict that does not follow from its clauses or has malformed parts."""
        if self.schema_version != SCHEMA_VERSION:
            raise BadInput(f"wanted a verdict of schema version {SCHEMA_VERSION}, got {self.schema_version!r}")
        known = (*OUTCOMES, WAIVED)
        if not self.stage or not isinstance(self.stage, str) or self.outcome not in known:
            raise BadInput(f"a verdict needs a stage and an outcome of {list(known)}, got {self.outcome!r}")
        follows = combine(self.clauses)
        if (self.outcome == WAIVED) != (self.waiver is not None) or (self.waiver and follows == "pass"):
            raise BadInput("a verdict is waived if it has a waiver, and only what does not pass can be")
        if self.outcome != (WAIVED if self.waiver else follows):
            raise BadInput(f"the outcome {self.outcome!r} does not follow from the clauses ({follows!r})")
        if not all(isinstance(text, str) for text in (self.profile, *self.reasons)):
            raise BadInput(f"a verdict's profile and reasons are texts, got {self.profile!r} and {self.reasons!r}")
        if not all(isinstance(part, Mapping) for part in (self.seeds, self.scorer or {}, self.sampling or {})):
            raise BadInput("a verdict's seeds, scorer and sampling are JSON objects")
        if not isinstance(self.attempt, int) or isinstance(self.attempt, bool) or self.attempt < 1:
            raise BadInput(f"a verdict's attempt is a whole number from 1, got {self.attempt!r}")
        optional = (self.prompts, self.parent_verdict, self.base_verdict, self.reward_verdict)
        for digest in (self.checkpoint, self.policy, *(d for d in optional if d is not None), *self.evidence.values()):
            if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
                raise BadInput(f"wanted a digest such as sha256:<64 hex digits>, got {digest!r}")

    @property
    def passed(self) -> bool:
        """Whether the checkpoint may be used by the next stage: its gate passed it, or was waived."""
        return self.outcome in ("pass", WAIVED)

    def raise_unless_passed(self) -> None:
        """Turn a verdict into the command line's exit code.

        Raises:
            GateFailed: the outcome is "fail".
            GateInconclusive: the outcome is "inconclusive".
        """
        if not self.passed:
            error = GateFailed if self.outcome == "fail" else GateInconclusive
            raise error(f"the gate of {self.stage} says {self.outcome}: {'; '.join(self.reasons)}")

    def to_json(self) -> str:
        """Return the content of verdict.json."""
        values = asdict(self) | {"clauses": [clause._asdict() for clause in self.clauses]}
        values |= {"waiver": self.waiver and self.waiver._asdict(), "waivers": [w._asdict() for w in self.waivers]}
        # What nobody waived says nothing of waivers, and what no reward model made nothing of one.
        values = {name: value for name, value in values.items() if name not in _OPTIONAL or value}
        return json.dumps(values, indent=1, sort_keys=True, allow_nan=False) + "\n"


def reasons_of(clauses: Sequence[Clause]) -> tuple[str, ...]:
    """Return what to tell a person: the clauses that do not hold, or that all do."""
    open_ = [clause for clause in clauses if clause.outcome not in ("pass", "not applicable")]
    if not open_:
        held = sum(clause.outcome == "pass" for clause in clauses)
        return (f"all {held} clauses that apply hold",)
    return tuple(f"{clause.name} ({clause.outcome}): {clause.reason}" for clause in open_)


def verdict_from(values: Any) -> Verdict:
    """Return the verdict that a JSON value holds.

    Raises:
        BadInput: fields missing or unknown, or contradicting itself.
    """
    names = {item.name for item in fields(Verdict)}
    if not isinstance(values, dict) or not names - _OPTIONAL <= set(values) <= names:
        got = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise BadInput(f"it is not a verdict: wanted exactly the fields {sorted(names)}, got {got}")
    try:
        clauses = tuple(_clause(**clause) for clause in values["clauses"])
        waiver = None if values.get("waiver") is None else waiver_from(values["waiver"])
        waivers = tuple(waiver_from(waiver) for waiver in values.get("waivers", ()))
        parts = {"clauses": clauses, "reasons": tuple(values["reasons"]), "waiver": waiver, "waivers": waivers}
        return Verdict(**values | parts)
    except (TypeError, AttributeError, BadInput) as error:
        raise BadInput(f"it is not a valid verdict: {error}") from error


def _clause(
    name: Any, outcome: Any, reason: Any, measured: Any = None, bound: Any = None, limit: Any = None
) -> Clause:
    """Return a clause of a file, whose fields may be anything."""
    number = lambda value: value is None or type(value) in (int, float)  # noqa: E731
    if not all(isinstance(text, str) for text in (name, outcome, reason)):
        raise BadInput(f"a clause has a name, an outcome and a reason, got {name!r}, {outcome!r} and {reason!r}")
    if outcome not in (*OUTCOMES, "not applicable") or not all(map(number, (measured, bound, limit))):
        raise BadInput(f"the clause {name!r} has the outcome {outcome!r} and the numbers {measured, bound, limit}")
    return Clause(name, outcome, reason, measured, bound, limit)
