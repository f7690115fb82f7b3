"""A gate run again from the checkpoint and what the first one stored, to the same verdict or to none.

The prompts are those stored with the samples, the reward model's pairs those of pairs.jsonl, the parents' samples are
those of their gates, and everything is drawn with the verdict's seeds; so on a processor that rounds alike the digest
comes out the same. The run is left as it is.
"""

import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.gate_pairs import stored_pairs
from pipeline.gated_run import GatedRun
from safety.attestation import Attestation
from safety.gate_folder import has_evidence
from safety.prompt_media import FOLDER as MEDIA
from safety.prompt_media import attachments
from safety.prompt_set import PromptSetIdentity
from safety.prompts import GatePrompt
from safety.verdict import Verdict
from training.digest import bytes_digest
from training.errors import BadInput, Refused


def require_same_again(run: GatedRun, found: Attestation) -> None:
    """Refuses a verdict that does not come out again.

    Raises:
        Refused: its evidence is not what it was, or another verdict comes out; naming what differs.
    """
    verdict, stage = found.verdict, found.verdict.stage
    gate = run.folder.stage(stage).gate
    if not verdict.evidence or not has_evidence(verdict, gate):
        raise Refused(f"the gate of {stage} cannot be run again: what it stored in {gate} is missing or was edited")
    with tempfile.TemporaryDirectory() as folder:
        into, held_out = Path(folder), run.data_files().preferences_held_out
        if stage == "reward":
            again = run.judge_reward(into, lambda: stored_pairs(gate, held_out))
        else:
            try:
                posed = _posed(gate)
            except BadInput as error:
                raise Refused(f"the gate of {stage} cannot be run again: {error}") from error
            again = run.judge(stage, into, *posed)
    # How often a gate was asked, and somebody's word, are not computed.
    again = replace(again, attempt=verdict.attempt)
    if verdict.waiver is not None:
        again = replace(again, outcome=verdict.outcome, waiver=verdict.waiver)
    if bytes_digest(again.to_json().encode()) != found.digest:
        raise Refused(f"the gate of {stage} run again gives another verdict: {_difference(verdict, again)}")


def _posed(gate: Path) -> tuple[list[GatePrompt], list[PromptSetIdentity]]:
    """The prompts of samples.jsonl, in the order in which they were posed, and the sets that they are from.

    Raises:
        BadInput: what comes with a prompt is missing or was changed.
    """
    rows = [json.loads(line) for line in (gate / "samples.jsonl").read_text(encoding="utf-8").split("\n") if line]
    prompts = [GatePrompt.from_dict(row, gate / MEDIA) for row in rows]
    for part in (part for prompt in prompts for part in attachments(prompt.content)):
        part.read()
    sets = json.loads((gate / "report.json").read_text(encoding="utf-8"))["prompts"]["sets"]
    return prompts, [PromptSetIdentity(**origin) for origin in sets]


def _difference(then: Verdict, now: Verdict) -> str:
    """The first field that tells two verdicts apart, with the most telling ones first."""
    before, after = asdict(then), asdict(now)
    order = ("checkpoint", "policy", "prompts", "scorer", "sampling", "seeds", "parent_verdict", "base_verdict",
             "outcome", "evidence")  # fmt: skip
    name = next(name for name in (*order, *before) if before[name] != after[name])
    return f"{name} was {before[name]!r:.300} and is {after[name]!r:.300}"
