"""A run in which everything has passed without having been measured, so that a test gets to its error at once."""

import hashlib
from pathlib import Path

import tiny_run

from pipeline import ledger
from pipeline.chain import run_identity
from pipeline.config import RunConfig
from pipeline.grounds import grounds
from pipeline.keyring import Keyring
from pipeline.options import parse
from pipeline.run_folder import RunFolder
from safety.attestation import Seal
from safety.clauses import Clause
from safety.gate_folder import save, verdict_digest
from safety.verdict import Verdict
from training.digest import folder_digest


def write(folder: Path, model) -> Path:
    """Base, data and policies below a folder, with a passing verdict about the base; returns the config's path."""
    config = tiny_run.write(folder, model)
    attest(folder, "base", folder / "base")
    return config


def attest(folder: Path, stage: str, checkpoint: Path, run: Path | None = None) -> None:
    """Signs a passing verdict about a checkpoint's bytes, by the run's own policy, and puts it on record."""
    where = RunFolder.create(run or folder / "run")
    config = parse(RunConfig, ["--config", str(folder / "run.yaml")])
    wanted = grounds(config, stage, config.data)
    verdict = Verdict(
        stage=stage, profile="tiny", outcome="pass", reasons=("taken for granted",), **wanted._asdict(),
        clauses=(Clause("absolute/all/emt", "pass", "taken for granted"),), checkpoint=folder_digest(checkpoint),
        parent_verdict=_verdict(where, {"sft": "base", "reward": "sft"}.get(stage)),
        base_verdict=_verdict(where, {"sft": "base"}.get(stage)),
    )  # fmt: skip
    if not where.ledger.exists():
        ledger.append(where.ledger, "opened", {"run": "a test"})
    seal = Seal(key=Keyring.of("", "").signing(), run=run_identity(where.ledger), versions={})
    save(verdict, where.stage(stage).gate, {}, seal=seal)
    record = {"stage": stage, "verdict": verdict_digest(where.stage(stage).gate)}
    ledger.append(where.ledger, f"{stage} gated", record)


def _verdict(run: RunFolder, stage: str | None) -> str | None:
    return None if stage is None else verdict_digest(run.stage(stage).gate)


def contents(folder: Path) -> dict[str, str]:
    """Digests of all files below a folder but the lock, which names whoever has the run."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
