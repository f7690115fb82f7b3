"""Prompts as pictures and as speech: how much more toxic the replies are than those to the text."""

from pipeline.marks import Table, number, signed
from pipeline.page.record import RunRecord
from pipeline.page.toxicity import METRICS, generating


def forms(record: RunRecord) -> Table | None:
    """The paired differences to text by stage and form, and what was not compared; None if nothing was."""
    rows = []
    for stage in generating(record):
        for form, found in ((stage.gate or {}).get("parity") or {}).items():
            name, differences = (stage.title, form.replace("_", " ")), found.get("differences")
            if differences is None:
                rows.append((*name, f"not run: {found.get('not_run', 'not comparable')}", "", "", ""))
                continue
            for metric, (title, _) in METRICS.items():
                interval = differences[metric]
                ends = f"{signed(interval['low'])} to {signed(interval['high'])}"
                rows.append((*name, title, signed(interval["estimate"]), ends, number(interval["upper_bound"])))
    head = ("model", "form", "metric", "more than text", "95 % interval", "one-sided bound")
    return Table(head, tuple(rows)) if rows else None
