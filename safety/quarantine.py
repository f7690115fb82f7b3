"""Checkpoints that did not pass: waived on somebody's word, which everything made from them carries on.

A waiver is a verdict of its own, outcome "waived", with the clauses, the evidence and the reasons of the one that it
waives, and the reason for it. Verdicts on what is made from the checkpoint carry it on.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from safety.gate_folder import EVIDENCE, has_evidence, load, save, verdict_digest
from safety.verdict import Verdict
from safety.waiver import WAIVED, Waiver
from training.digest import folder_digest
from training.errors import BadInput, Refused


def waive(
    gate: str | os.PathLike,
    checkpoint: str | os.PathLike,
    *,
    reason: str,
    seal: Callable[[Verdict, Mapping[str, str]], str] | None = None,
) -> Verdict:
    """Write a waiver of a gate's verdict in its place; the verdict itself is kept beside it.

    Args:
        gate: the gate folder.
        checkpoint: the checkpoint that the verdict is about.
        reason: why the checkpoint may be used.
        seal: signs the waiver (`safety.attestation.Seal`); without it nobody accepts it.

    Raises:
        BadInput: no reason, no verdict, or one that passes or is waived already.
        Refused: the verdict is about other bytes, or its evidence is not what it was, or there is none.
    """
    if not reason.strip():
        raise BadInput("a waiver needs a reason: reason='why this checkpoint may be used although it did not pass'")
    folder = Path(gate)
    verdict = load(folder)
    if verdict.passed:
        raise BadInput(f"the gate of {verdict.stage} says {verdict.outcome}: there is nothing to waive")
    digest = folder_digest(checkpoint)
    if verdict.checkpoint != digest:
        raise Refused(f"{checkpoint} has the digest {digest}, but the verdict to waive is about {verdict.checkpoint}")
    if "report.json" not in verdict.evidence or not has_evidence(verdict, folder):
        raise Refused(
            f"the gate of {verdict.stage} has no evidence that could be waived, or not what it was: gate it again"
        )
    files = {name: (folder / name).read_text(encoding="utf-8") for name in EVIDENCE if name in verdict.evidence}
    own = Waiver(verdict.stage, digest, verdict.outcome, verdict_digest(folder), " ".join(reason.split()))
    return save(replace(verdict, outcome=WAIVED, waiver=own), folder, files, attempts=verdict.attempt, seal=seal)


def waivers_of(verdict: Verdict) -> tuple[Waiver, ...]:
    """Return a verdict's waivers: its own, and those of what its checkpoint comes from."""
    return (*verdict.waivers, *(() if verdict.waiver is None else (verdict.waiver,)))


def inherited(gates: Iterable[str | os.PathLike]) -> tuple[Waiver, ...]:
    """Return the waivers in the verdicts of some gate folders and of what those come from, each once.

    Raises:
        BadInput: a verdict that is there cannot be read; one that is not there has no waiver.
    """
    verdicts = [load(gate) for gate in gates if (Path(gate) / "verdict.json").exists()]
    return tuple(dict.fromkeys(waiver for verdict in verdicts for waiver in waivers_of(verdict)))
