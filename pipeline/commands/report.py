"""`theodolite report`: draw the page of a run again."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Report:
    """Draws the page of a run again from what is in its folder.

    Attributes:
        run: the run's folder.
        open: show it in the browser.
    """

    run: str
    open: bool = False


def report(config: Report) -> None:
    """Draws it, with junit.xml and model_card.md beside it."""
    import webbrowser

    from pipeline.report import draw_report
    from pipeline.run_folder import RunFolder

    page = draw_report(RunFolder.open(config.run).path)
    print(page)
    if config.open and not webbrowser.open(page.as_uri()):
        print("No browser can be started here; open that file in one.")
