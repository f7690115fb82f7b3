"""A run in which everything has passed without having been measured, so that a test gets to its error at once."""

import hashlib
from pathlib import Path

import tiny_run

from pipeline.config import gate_policy, reward_gate_policy
from safety.clauses import Clause
from safety.gate_folder import save
from safety.verdict import Verdict
from training.digest import folder_digest


def write(folder: Path, model) -> Path:
    """Base, data and policies below a folder, with a passing verdict about the base; returns the config's path."""
    config = tiny_run.write(folder, model)
    attest(folder, "base", folder / "base")
    return config


def attest(folder: Path, stage: str, checkpoint: Path, run: Path | None = None) -> None:
    """Writes a passing verdict about a checkpoint's bytes, by the run's own policy."""
    if stage == "reward":
        policy = reward_gate_policy(str(folder / "reward_gate.yaml"))
    else:
        policy = gate_policy(str(folder / "gate.yaml"))
    verdict = Verdict(
        stage=stage, profile=policy.profile, outcome="pass", reasons=("taken for granted",), policy=policy.digest,
        clauses=(Clause("absolute/all/emt", "pass", "taken for granted"),), checkpoint=folder_digest(checkpoint),
    )  # fmt: skip
    save(verdict, (run or folder / "run") / stage / "gate", {})


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder but the lock, which names whoever has the run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
