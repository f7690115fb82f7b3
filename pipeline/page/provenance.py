"""Where a run comes from: versions, seeds, ledger, and the commands that repeat or check it."""

import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.marks import Table
from pipeline.page.record import RunRecord


class Command(NamedTuple):
    """A line to copy, and what it does."""

    text: str
    purpose: str


class Provenance(NamedTuple):
    """What stands at the end of the page."""

    ledger: str
    head: str | None
    holds: bool
    events: Table | None
    versions: Table | None
    seeds: Table | None
    digests: Table | None
    commands: tuple[Command, ...]


def provenance(record: RunRecord) -> Provenance:
    """Gathers what the run says about itself."""
    holds = record.ledger_problem is None
    head = str(record.events[-1]["hash"]) if holds and record.events else None
    if holds:
        ledger = f"Its chain of {len(record.events)} events is unbroken."
    else:
        ledger = f"It cannot be relied on: {record.ledger_problem}."
    return Provenance(
        ledger=ledger,
        head=head,
        holds=holds,
        events=_events(record),
        versions=_versions(record.config_text),
        seeds=_seeds(record.config),
        digests=_digests(record),
        commands=_commands(record),
    )


def _events(record: RunRecord) -> Table | None:
    rows = []
    for event in record.events:
        own = ("index", "event", "time", "previous", "hash", "recipe")  # the last stands in run.yaml, whole
        details = ", ".join(f"{key} {_short(value)}" for key, value in _flat(event) if key.split(".")[0] not in own)
        rows.append((str(event["index"]), str(event["time"]), str(event["event"]), details, _short(event["hash"])))
    return Table(("no.", "time", "event", "details", "hash"), tuple(rows)) if rows else None


def _versions(text: str) -> Table | None:
    """The packages of run.yaml's opening comment, a name and a version a line."""
    rows = [tuple(line[1:].split()) for line in text.splitlines() if line.startswith("#")]
    rows = [row for row in rows if len(row) == 2]
    return Table(("package", "version"), tuple(rows)) if rows else None


def _seeds(config: Mapping[str, Any]) -> Table | None:
    """Every option of the run whose name speaks of a seed."""
    rows = [(name, str(value)) for name, value in _flat(config) if "seed" in name]
    return Table(("option", "seed"), tuple(rows)) if rows else None


def _digests(record: RunRecord) -> Table | None:
    rows = []
    for stage in record.stages:
        if stage.verdict is None:
            continue
        verdict = stage.verdict
        rows += [(f"{stage.title}: checkpoint", verdict.checkpoint), (f"{stage.title}: gate policy", verdict.policy)]
        posed = "preference pairs" if verdict.stage == "reward" else "gate prompts"
        rows += [(f"{stage.title}: {posed}", verdict.prompts)] if verdict.prompts else []
        rows += [(f"{stage.title}: verdict", stage.verdict_digest)] if stage.verdict_digest else []
        rows += [(f"{stage.title}: signed by", stage.signed_by)] if stage.signed_by else []
        rows += [(f"{stage.title}: scorer", verdict.scorer["digest"])] if verdict.scorer else []
        rows += [(f"{stage.title}: {name}", digest) for name, digest in verdict.evidence.items()]
    return Table(("what", "digest"), tuple(rows)) if rows else None


def _commands(record: RunRecord) -> tuple[Command, ...]:
    folder = f"runs/{record.name}"
    judged = [stage for stage in record.stages if stage.verdict is not None]
    commands = []
    if record.name == "quickstart":
        again = _quoted("theodolite", "quickstart", f"out={folder}-again")
        commands.append(Command(again, "runs the quickstart once more, into another folder"))
    if record.config_text:
        again = _quoted("theodolite", "run", f"{folder}/run.yaml", f"out={folder}-again")
        commands.append(Command(again, "repeats this run with exactly its options, into another folder"))
        if judged:
            of = f"{folder}/{judged[0].name}" if len(record.stages) == 1 else folder
            check = _quoted("theodolite", "safety", "verify", of)
            commands.append(Command(check, "checks signatures and checkpoints, back to the base model"))
            purpose = "also runs the gates again, which must come to the same verdict"
            commands.append(Command(f"{check} --rerun", purpose))
    return (*commands, Command(_quoted("theodolite", "report", folder), "draws this page again"))


def redraw(run: str, stage: str) -> str:
    """The command that draws a prompt's replies again; the prompt's number goes behind it."""
    return _quoted("theodolite", "safety", "redraw", f"runs/{run}", stage)


def _quoted(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    return [pair for key, inner in value.items() for pair in _flat(inner, f"{prefix}.{key}" if prefix else str(key))]


def _short(value: Any) -> str:
    text = str(value)
    return text[:19] if text.startswith("sha256:") else text
