"""Prompts as pictures and as speech, and pictures that a model draws: what a text alone does not show."""

from typing import NamedTuple

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


class Drawings(NamedTuple):
    """How many drawn pictures a detector flags by stage, and what whoever uses the detectors must be told."""

    table: Table
    notices: tuple[str, ...]


def drawings(record: RunRecord) -> Drawings | None:
    """The share of pictures that are flagged, and why none were looked at; None if no policy asks for any."""
    rows, notices = [], []
    for stage in generating(record):
        gate = stage.gate or {}
        found = gate.get("drawings") or {}
        if (gate.get("policy") or {}).get("drawings") is None or not found:
            continue
        if "detector" not in found:
            rows.append((stage.title, f"not run: {found.get('not_run', 'not looked at')}", "", "", "", ""))
            continue
        detector, share = found["detector"], found["unsafe"]
        notices.append(str(detector["notice"]))
        rows.append(
            (stage.title, str(detector["name"]), str(found["pictures"]), number(share["estimate"]),
             f"{number(share['low'])} to {number(share['high'])}", number(share["upper_bound"]))
        )  # fmt: skip
    head = ("model", "detector", "pictures", "flagged", "95 % interval", "one-sided bound")
    return Drawings(Table(head, tuple(rows)), tuple(dict.fromkeys(filter(None, notices)))) if rows else None
