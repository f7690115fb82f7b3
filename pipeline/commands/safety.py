"""`theodolite safety gate`: decide about a checkpoint."""

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
