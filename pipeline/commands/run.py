"""`theodolite run`: the whole pipeline, or a part of it."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig
from pipeline.run_folder import STAGES
from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Run(RunConfig):
    """The whole pipeline from a config, or a part of it.

    Attributes:
        from_: first stage to run: base, sft, reward or ppo. What is done already is not done again.
        until: last stage to run.
    """

    from_: Literal["base", "sft", "reward", "ppo"] = "base"
    until: Literal["base", "sft", "reward", "ppo"] = "ppo"

    def __post_init__(self) -> None:
        """Refuses a part of the run that has no stage in it."""
        super().__post_init__()
        if STAGES.index(self.from_) > STAGES.index(self.until):
            order = ", ".join(STAGES)
            raise BadInput(f"no stage from {self.from_} until {self.until}: the order of stages is {order}")


def run(config: Run) -> None:
    """Runs the stages, draws the page, and prints what came of it."""
    from pipeline.report import draw_report
    from pipeline.session import open_run
    from pipeline.summary import is_current, print_summary, summarise

    with open_run(config) as pipeline:
        page, current = pipeline.folder.report, is_current(pipeline)
        try:
            pipeline.advance(config.from_, config.until)
            current = current and is_current(pipeline)
            if current:
                print(f"The run {pipeline.folder.path} is finished; its page is {page}")
            elif config.until == "ppo":
                page.unlink(missing_ok=True)  # a page older than the summary must not pass for the finished run's
                print_summary(pipeline, summarise(pipeline))
            else:
                print(f"Finished up to {config.until}. Page: {page}")
        finally:
            # The page is drawn of a failed run too: it says which gate stopped it and why.
            if not (current and is_current(pipeline) and page.exists()):
                draw_report(pipeline.folder.path)
