"""The chain of verdicts from a stage back to the base model, and whether every link of it holds.

A verdict names its parents' verdicts by digest, and each of them is signed. So who relies on the last one relies on
exactly those before it; a parent that was gated again since then breaks the chain.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline import ledger
from pipeline.run_folder import RunFolder
from safety.attestation import Attestation, read, require_outcome
from safety.quarantine import waivers_of
from safety.verdict import Verdict
from training.errors import BadInput, Refused

# Whose checkpoint each stage starts from, and whose verdicts it asks for.
PARENT = {"sft": "base", "reward": "sft", "ppo": "sft"}
DEMANDS = {"sft": ("base",), "reward": ("sft",), "ppo": ("sft", "reward")}


def named_parents(verdict: Verdict) -> list[tuple[str, str | None]]:
    """The verdicts that a verdict must name: each with its stage and the digest that it does name."""
    stage = verdict.stage
    if stage not in PARENT:
        return []
    found = [(PARENT[stage], verdict.parent_verdict)]
    if stage != "reward":  # it generates nothing that could be compared with the base model's
        found.append(("base", verdict.base_verdict))
    return [*found, ("reward", verdict.reward_verdict)] if stage == "ppo" else found


def run_identity(path: Path) -> str:
    """What tells a run from every other: the hash of its ledger's first event.

    Args:
        path: the ledger. Where it has no event no verdict was ever signed, and what is returned is in none.

    Raises:
        Refused: its chain is broken.
    """
    events = _events(path)
    return events[0]["hash"] if events else ledger.FIRST


def require_record(found: Attestation, path: Path) -> None:
    """Refuses a signed verdict that is not the last one that the ledger has of its stage.

    Raises:
        Refused: it is an older one, or was made elsewhere.
    """
    stage = found.verdict.stage
    gated = [event for event in _events(path) if event["event"] in (f"{stage} gated", f"{stage} waived")]
    if not gated or gated[-1].get("verdict") != found.digest:
        raise Refused(
            f"the verdict on {stage} ({found.digest}) is not the last that the ledger has on record; "
            f"run the gate of {stage} again"
        )


def chain(folder: RunFolder, stage: str, trusted: Collection[str]) -> Iterator[Attestation]:
    """The signed verdicts that a stage's is built on, the base's first and its own last, each once.

    Raises:
        Refused: one is missing, not signed by a trusted key, not a pass, of another run, not on record, not the one
            that its child names, or hides a waiver.
    """
    run, done = run_identity(folder.ledger), dict[str, Attestation]()

    def walk(name: str) -> Iterator[Attestation]:
        if name in done:
            return
        found = read(folder.stage(name).gate, name, trusted=trusted, run=run)
        require_outcome(found)
        require_record(found, folder.ledger)
        for parent, _ in named_parents(found.verdict):
            yield from walk(parent)
        for parent, digest in named_parents(found.verdict):
            if done[parent].digest != digest:
                raise Refused(
                    f"the verdict on {name} was built on another verdict on {parent} ({digest}) than the one there now "
                    f"({done[parent].digest}); run the gate of {name} again"
                )
            if hidden := [w for w in waivers_of(done[parent].verdict) if w not in found.verdict.waivers]:
                raise Refused(f"the verdict on {name} hides that {hidden[0].stage}, which it is made from, was waived")
        done[name] = found
        yield found

    yield from walk(stage)


def _events(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return ledger.verify(path) if path.exists() else []
    except BadInput as error:
        raise Refused(f"the run cannot be relied on: {error}") from error
