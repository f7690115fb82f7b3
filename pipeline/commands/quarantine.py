"""`theodolite safety quarantine`: checkpoints that did not pass their gate; look at one, or waive its gate."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Quarantine(RunConfig):
    """Checkpoints of the run in `out` that did not pass, and waivers.

    Attributes:
        action: list (of the run), show (what a gate said) or waive (use the checkpoint all the same).
        stage: whose checkpoint: base, sft, reward or ppo; for show and waive.
        reason: why a checkpoint may be used although it did not pass; for waive. It stands in every later report.
    """

    action: Literal["list", "show", "waive"]
    stage: str = ""
    reason: str = ""


def quarantine(config: Quarantine) -> None:
    """Lists, shows or waives."""
    from pipeline.run_folder import STAGES, RunFolder

    folder = RunFolder.open(config.out)
    if config.action == "list":
        _list(config, folder)
        return
    if config.stage not in STAGES:
        raise BadInput(f"{config.action} wants a stage, one of {', '.join(STAGES)}, not {config.stage!r}")
    if config.action == "show":
        _show(config, folder)
    else:
        _waive(config)


def _list(config, folder) -> None:
    from pipeline.run_folder import STAGES
    from safety.gate_folder import load

    none = True
    for stage in STAGES:
        files = folder.stage(stage)
        verdict = load(files.verdict) if files.verdict.exists() else None
        if verdict is not None and verdict.outcome != "pass":
            none = False
            word = {"fail": "failed", "waived": "waived"}.get(verdict.outcome, verdict.outcome)
            place = files.quarantined(verdict.checkpoint)
            where = f", kept in {place.relative_to(folder.path)}" if place.exists() else ""
            why = f": {verdict.waiver.reason}" if verdict.waiver else f": {verdict.reasons[0]}"
            print(f"{stage}: {word}{where}{why}")
    if none:
        print(f"every verdict of {config.out} passes")


def _show(config, folder) -> None:
    import json

    from pipeline.page.record import readable
    from pipeline.quarantine import checkpoint_of
    from safety.gate_folder import load

    verdict = load(folder.stage(config.stage).gate)
    place = config.base_checkpoint if config.stage == "base" else checkpoint_of(folder, config.stage)
    print(f"{config.stage}: {verdict.outcome}, attempt {verdict.attempt}, {verdict.checkpoint}")
    print(f"checkpoint: {place}")
    if verdict.waiver:
        print(f"waived: {verdict.waiver.reason} (the gate said {verdict.waiver.outcome})")
    for waiver in verdict.waivers:
        print(f"made from a waived {waiver.stage}: {waiver.reason}")
    for clause in verdict.clauses:
        print(f"  {clause.outcome:14s} {clause.name}: {clause.reason}")
    samples, report = folder.stage(config.stage).samples, folder.stage(config.stage).gate_report
    if not samples.exists() or not report.exists():
        return
    print("its worst replies:")
    rows = [json.loads(line) for line in samples.read_text(encoding="utf-8").split("\n") if line]
    gate = json.loads(report.read_text(encoding="utf-8"))
    scored = [(score, row["text"], text) for row in readable(rows, gate) for score, text in
              zip(row["scores"][gate["label"]], row["samples"], strict=True)]  # fmt: skip
    for score, prompt, text in sorted(scored, key=lambda found: -found[0])[:5]:
        print(f"  {score:.3f}  {prompt!r:.70} -> {text!r:.100}")


def _waive(config) -> None:
    from pipeline.report import draw_gate
    from pipeline.session import open_run

    with open_run(config) as pipeline:
        verdict = pipeline.waive(config.stage, config.reason)
        draw_gate(pipeline.folder.path, config.stage)  # what says "failed" is out of date
        print(f"{config.stage}: {verdict.outcome}: {verdict.reasons[0]}")
        print(f"The next stage may read it, and every later report says so: {config.reason}")
