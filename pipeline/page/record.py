"""Everything that a run folder holds by now, read without trusting any of it. What is broken becomes a note."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline import ledger
from pipeline.run_folder import STAGES, RunFolder, StageFolder
from safety.attestation import read as read_attestation
from safety.gate_folder import load as load_verdict
from safety.gate_folder import verdict_digest
from safety.prompt_media import WORDS
from safety.verdict import Verdict
from training.digest import file_digest
from training.errors import BadInput, Refused

SEALED = "(a prompt of the sealed half; samples.jsonl has its text)"
# Control characters but tab and line feed, what changes the direction, surrogates, and what is no character at all.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
TITLES = {"base": "Base model", "sft": "SFT", "reward": "Reward model", "ppo": "PPO"}


@dataclass(frozen=True, kw_only=True)
class StageRecord:
    """The files of one stage.

    Attributes:
        name: "base", "sft", "reward" or "ppo".
        verdict: its gate's, if there is a valid one.
        verdict_digest: digest of verdict.json.
        signed_by: name of the key whose signature holds, whoever's it is; a page trusts no key.
        unsigned: why there is none.
        gate: report.json of its gate.
        samples: rows of samples.jsonl, without what prompts of a sealed half say: who reads a page may train by it.
        evaluation: evaluation.json.
        metrics: rows of metrics.jsonl.
        has_checkpoint: whether there is a checkpoint folder.
    """

    name: str
    verdict: Verdict | None = None
    verdict_digest: str | None = None
    signed_by: str | None = None
    unsigned: str = ""
    gate: dict | None = None
    samples: list[dict] = field(default_factory=list)
    evaluation: dict | None = None
    metrics: list[dict] = field(default_factory=list)
    has_checkpoint: bool = False

    @property
    def title(self) -> str:
        """Its name for a person."""
        return TITLES[self.name]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The files of a run.

    Attributes:
        name: the folder's.
        root: the folder, absolute; where it lies on this machine is not for the page.
        stages: every stage, in order, empty ones included.
        summary: summary.json.
        config_text: run.yaml as it stands.
        config: the same, parsed.
        events: the ledger's events if its chain holds.
        ledger_problem: why it does not hold, if it doesn't.
        notes: sentences about what is missing or cannot be read.
    """

    name: str
    root: str
    stages: tuple[StageRecord, ...]
    summary: dict | None
    config_text: str
    config: dict
    events: list[dict]
    ledger_problem: str | None
    notes: list[str]


def read_run(path: Path) -> RunRecord:
    """Reads a run folder, whatever stages are there so far."""
    folder = RunFolder(path=path.absolute().resolve())
    notes: list[str] = []

    def attempt(file: Path, read: Callable[[Path], Any], *, wanted: type, default: Any) -> Any:
        """The file's content; the default if it is missing, and also, with a note, if it is broken."""
        if not file.is_file():
            return default
        try:
            content = read(file)
            if not isinstance(content, wanted):
                raise ValueError(f"it holds a {type(content).__name__}, not a {wanted.__name__}")
            return content
        except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError, BadInput) as error:
            notes.append(f"{file.relative_to(folder.path)} cannot be read: {error}")
            return default

    stages = []
    for name in STAGES:
        stage = folder.stage(name)
        verdict = attempt(stage.verdict, load_verdict, wanted=Verdict, default=None)
        for file in (stage.gate_report, stage.samples):
            digest = attempt(file, file_digest, wanted=str, default=None)
            if verdict is not None and digest not in (None, verdict.evidence.get(file.name)):
                notes.append(f"{file.relative_to(folder.path)} is not the file that the verdict beside it attests.")
        signed_by, unsigned = _signature(stage, name)
        gate = attempt(stage.gate_report, _json, wanted=dict, default=None)
        samples = attempt(stage.samples, _json_lines, wanted=list, default=[])
        stages.append(
            StageRecord(
                name=name,
                signed_by=signed_by,
                unsigned=unsigned,
                verdict=verdict,
                verdict_digest=attempt(stage.verdict, verdict_digest, wanted=str, default=None),
                gate=gate,
                samples=readable(samples, gate),
                evaluation=attempt(stage.evaluation, _json, wanted=dict, default=None),
                metrics=attempt(stage.metrics, _json_lines, wanted=list, default=[]),
                has_checkpoint=stage.checkpoint.is_dir(),
            )
        )
    config_text = attempt(folder.config, lambda p: p.read_text(encoding="utf-8"), wanted=str, default="")
    summary = attempt(folder.summary, _json, wanted=dict, default=None)
    events, ledger_problem = [], None
    try:
        events = ledger.verify(folder.ledger)
        head = (summary or {}).get("ledger_head")
        # A run may go on after its summary; what the summary saw must still be there.
        if head is not None and all(event["hash"] != head for event in events):
            ledger_problem = "it does not hold the event that summary.json names as its last: lines were removed"
    except BadInput as error:
        ledger_problem = str(error) if folder.ledger.is_file() else "there is no ledger.jsonl"
    return RunRecord(
        name=folder.path.name,
        root=str(folder.path),
        stages=tuple(stages),
        summary=summary,
        config_text=config_text,
        config=attempt(folder.config, lambda p: yaml.safe_load(p.read_bytes()) or {}, wanted=dict, default={}),
        events=events,
        ledger_problem=ledger_problem,
        notes=notes,
    )


def visible(text: str) -> str:
    """Text that shows what is in it: control and direction-changing characters by their code points.

    A reply is whatever a model made; a right-to-left override or an escape could rearrange the page around it, and a
    lone surrogate cannot be written as UTF-8 at all.
    """
    return _HIDDEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def _signature(stage: StageFolder, name: str) -> tuple[str | None, str]:
    """Whose signature a verdict has, or why it has none that holds; neither where there is no verdict."""
    if not stage.verdict.exists():
        return None, ""
    try:
        return read_attestation(stage.gate, name, trusted=None).key, ""
    except Refused as refused:
        return None, str(refused)


def readable(samples: list[dict], gate: dict | None) -> list[dict]:
    """The lines of samples.jsonl as a reader may see them: sealed prompts without text, others with what came with it.

    Args:
        samples: the lines.
        gate: the report beside them.
    """
    policy = (gate or {}).get("policy")
    sealed = isinstance(policy, dict) and policy.get("half") == "sealed"
    return [
        {name: row[name] for name in row if name != "content"} | {"text": SEALED if sealed else _with_media(row)}
        if sealed or "content" in row
        else row
        for row in samples
    ]


def _with_media(row: dict) -> str:
    parts = row["content"] if isinstance(row["content"], list) else []
    kinds = [part.get("type") for part in parts if isinstance(part, dict)]
    words = [WORDS[kind] for kind in kinds if isinstance(kind, str) and kind in WORDS]
    return f"{row.get('text')} [with a {' and a '.join(words)}]"


def _json(path: Path) -> Any:
    # NaN is no JSON: a number that could not be measured stands as none.
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)


def _json_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file; a last line without its end belongs to a run that is still writing."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    rows = [json.loads(line, parse_constant=lambda _: None) for line in lines if line]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("not every line is a JSON object")
    return rows
