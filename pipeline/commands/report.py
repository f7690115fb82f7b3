"""`theodolite report`: draw the page of a run again."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """Draws the page of a run again from what is in its folder.

    Attributes:
        run: the run's folder.
    """

    run: str


def report(config: Report) -> None:
    """Draws it."""
    from pipeline.report import draw_report
    from pipeline.run_folder import RunFolder

    print(draw_report(RunFolder.open(config.run).path))
