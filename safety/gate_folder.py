"""A gate's folder on disk: the verdict, its envelope, its evidence, and those of earlier attempts beside them."""

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from safety.verdict import Verdict, verdict_from
from training.digest import bytes_digest, file_digest
from training.errors import BadInput
from training.files import write_whole

EVIDENCE = (
    "report.json", "samples.jsonl", "unprompted.jsonl", "parity.jsonl", "drawings.jsonl", "pairs.jsonl",
    "rewards.jsonl",
)  # fmt: skip
ENVELOPE = "verdict.dsse.json"

_ATTEMPT = re.compile(r"verdict-([1-9][0-9]*)\.json")


def save(
    verdict: Verdict,
    folder: str | os.PathLike,
    files: Mapping[str, str],
    *,
    attempts: int = 0,
    seal: Callable[[Verdict, Mapping[str, str]], str] | None = None,
) -> Verdict:
    """Write a verdict and its evidence into a gate folder and return the verdict as written.

    An earlier verdict there is kept as verdict-1.json, verdict-2.json, ... with its evidence renamed likewise, and the
    new attempt is counted on. The verdict is written last: a crash in between leaves none, which refuses.

    Args:
        verdict: its `attempt` and `evidence` are set here.
        folder: <stage>/gate.
        files: content of each evidence file by name, one of EVIDENCE.
        attempts: how many there were by a record outside the folder, which may have lost some.
        seal: makes the envelope (`safety.attestation.Seal`); without it nobody accepts the verdict.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = [int(match[1]) for path in folder.iterdir() if (match := _ATTEMPT.fullmatch(path.name))]
    last = max(kept, default=0)
    if (folder / "verdict.json").exists():
        last += 1
        # The verdict last: while it stands, a crash in between is one after which this goes on where it was.
        for name in (*EVIDENCE, ENVELOPE, "verdict.json"):
            path = folder / name
            if path.exists():
                stem, dot, suffixes = name.partition(".")
                path.rename(path.with_name(f"{stem}-{last}{dot}{suffixes}"))
    for name in (*EVIDENCE, ENVELOPE):  # of an attempt that was killed before it had a verdict
        (folder / name).unlink(missing_ok=True)
    for name, content in files.items():
        write_whole(folder / name, content)
    evidence = {name: bytes_digest(content.encode()) for name, content in files.items()}
    verdict = replace(verdict, attempt=max(last, attempts) + 1, evidence=evidence)
    if seal is not None:
        write_whole(folder / ENVELOPE, seal(verdict, files))
    write_whole(folder / "verdict.json", verdict.to_json())
    return verdict


def load(path: str | os.PathLike) -> Verdict:
    """Read a verdict.json (or the one in a gate folder), signed or not.

    Raises:
        BadInput: missing, not JSON, fields missing or unknown, or contradicting itself.
    """
    path = _verdict_file(path)
    try:
        return verdict_from(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, BadInput) as error:
        raise BadInput(f"cannot read the verdict {path}: {error}") from error


def draws_tried(folder: str | os.PathLike, checkpoint: str) -> set[tuple[str | None, int]]:
    """Return what a gate folder's verdicts judged a checkpoint's bytes with: digest of the prompts, and seed."""
    tried = set()
    for path in Path(folder).glob("verdict*.json"):
        with contextlib.suppress(BadInput):  # what cannot be read was counted as an attempt, and tells no seed
            verdict = load(path)
            if verdict.checkpoint == checkpoint and "samples.jsonl" in verdict.evidence:
                tried.add((verdict.prompts, verdict.seeds["sampling"]))
    return tried


def has_evidence(verdict: Verdict, folder: str | os.PathLike) -> bool:
    """Whether the files beside a verdict are those that it was written with."""
    try:
        return all(file_digest(Path(folder) / name) == digest for name, digest in verdict.evidence.items())
    except BadInput:  # one is missing
        return False


def verdict_digest(path: str | os.PathLike) -> str:
    """Return the digest of a verdict.json's bytes (or of the one in a gate folder), for a child's `parent_verdict`."""
    return file_digest(_verdict_file(path))


def _verdict_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    return path / "verdict.json" if path.is_dir() else path
