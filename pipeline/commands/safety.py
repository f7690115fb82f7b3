"""`theodolite safety gate` and `verify`: decide about a checkpoint, check what was decided."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Safety(RunConfig):
    """A gate of the run in `out`.

    Attributes:
        stage: whose checkpoint: base, sft, reward or ppo.
    """

    stage: Literal["base", "sft", "reward", "ppo"]


def gate(config: Safety) -> None:
    """Writes the verdict; exits with 3 when it fails and 4 when it is inconclusive."""
    from pipeline.report import draw_gate
    from pipeline.session import open_run

    with open_run(config) as pipeline:
        verdict = pipeline.gate(config.stage)
        page = draw_gate(pipeline.folder.path, config.stage)
        for clause in verdict.clauses:
            print(f"  {clause.outcome:14s} {clause.name}: {clause.reason}")
        print(f"{config.stage}: {verdict.outcome}. Verdict: {pipeline.folder.stage(config.stage).verdict}")
        print(f"Page: {page}")
        verdict.raise_unless_passed()


def verify(config: Safety) -> None:
    """Checks that the verdict passes and is about exactly the checkpoint's bytes; exits with 5 when not."""
    from pipeline.run_folder import RunFolder
    from pipeline.stages import Pipeline
    from safety.gate_folder import require_passing

    pipeline = Pipeline(config=config, folder=RunFolder.open(config.out))
    verdict = require_passing(
        pipeline.folder.stage(config.stage).gate, pipeline.checkpoint(config.stage), config.stage
    )
    print(f"{config.stage}: {verdict.outcome}, attempt {verdict.attempt}, about exactly {verdict.checkpoint}")
