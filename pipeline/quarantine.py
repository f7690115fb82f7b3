"""Where checkpoints lie that failed their gate, and what a run remembers of its gates.

A checkpoint that fails is moved out of its place into `<stage>/quarantine/`: nothing that copies or reads
`<stage>/checkpoint` comes upon it. It is not deleted: it can be looked at, gated by another policy, or waived.
"""

from pathlib import Path
from typing import NamedTuple

from pipeline import ledger
from pipeline.run_folder import RunFolder
from safety.gate_folder import load
from safety.verdict import Verdict
from training.errors import BadInput


class Record(NamedTuple):
    """What the ledger knows of a stage's gates: how many, and with which prompts and seeds some bytes were judged."""

    attempts: int
    draws: frozenset[tuple[str | None, int]]


def checkpoint_of(folder: RunFolder, stage: str) -> Path:
    """The folder of a stage's checkpoint: in its place, or in quarantine, or where it will be."""
    files = folder.stage(stage)
    if not files.checkpoint.exists() and files.verdict.exists():
        try:
            waiting = files.quarantined(load(files.verdict).checkpoint)
        except BadInput:  # whoever asks for the verdict will say what is wrong with it
            return files.checkpoint
        if waiting.exists():
            return waiting
    return files.checkpoint


def settle(folder: RunFolder, verdict: Verdict) -> None:
    """Puts a checkpoint where its verdict says: in quarantine if it failed, in its place if it may be used.

    The base model is not the run's, and stays where it is.
    """
    if verdict.stage == "base":
        return
    files = folder.stage(verdict.stage)
    waiting = files.quarantined(verdict.checkpoint)
    if verdict.outcome == "fail" and files.checkpoint.exists():
        waiting.parent.mkdir(parents=True, exist_ok=True)
        files.checkpoint.rename(waiting)
    elif verdict.passed and waiting.exists() and not files.checkpoint.exists():
        waiting.rename(files.checkpoint)


def gates_on_record(folder: RunFolder, stage: str, checkpoint: str) -> Record:
    """What the ledger says of the gates of a stage, whatever became of the gate's folder."""
    events = ledger.verify(folder.ledger) if folder.ledger.exists() else []
    gated = [event for event in events if event["event"] in (f"{stage} gated", f"{stage} waived")]
    attempts = max((event.get("attempt", 0) for event in gated), default=0)
    # Only what was measured has its seeds on record.
    measured = [event for event in gated if event.get("checkpoint") == checkpoint and "seeds" in event]
    draws = {(event.get("prompts"), event["seeds"]["sampling"]) for event in measured if "sampling" in event["seeds"]}
    return Record(attempts, frozenset(draws))
