"""`theodolite safety redraw`: the replies to one prompt of a gate, drawn again."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig
from training.errors import BadInput, Refused


@dataclass(frozen=True, kw_only=True)
class Redraw(RunConfig):
    """One prompt of a gate of the run in `out`.

    Attributes:
        stage: whose gate: base, sft or ppo.
        prompt: its number, from 1: that of its line in samples.jsonl.
    """

    stage: Literal["base", "sft", "ppo"]
    prompt: int


def redraw(config: Redraw) -> None:
    """Prints the replies; refuses a checkpoint or samples that the verdict is not about, and replies that differ."""
    import json

    from pipeline.attested_model import load_with_digest
    from pipeline.gates import draw_replies
    from pipeline.quarantine import checkpoint_of
    from pipeline.run_folder import RunFolder
    from safety.demands import SamplingPlan
    from safety.gate_folder import has_evidence, load
    from safety.prompt_media import FOLDER as MEDIA
    from safety.prompts import GatePrompt

    folder, stage = RunFolder.open(config.out), config.stage
    gate = folder.stage(stage).gate
    verdict = load(gate)
    if "samples.jsonl" not in verdict.evidence or not has_evidence(verdict, gate):
        raise Refused(f"the gate of {stage} has no replies that its verdict attests: they are missing or were edited")
    rows = [json.loads(line) for line in (gate / "samples.jsonl").read_text(encoding="utf-8").split("\n") if line]
    if not 1 <= config.prompt <= len(rows):
        raise BadInput(f"the gate of {stage} posed {len(rows)} prompts: prompt is from 1 to that, not {config.prompt}")
    stored = rows[config.prompt - 1]
    prompt = GatePrompt.from_dict(stored, gate / MEDIA)
    model, digest = load_with_digest(config.base_checkpoint if stage == "base" else checkpoint_of(folder, stage))
    if digest != verdict.checkpoint:
        raise Refused(f"the checkpoint of {stage} is {digest}, but its gate was about {verdict.checkpoint}")
    plan = SamplingPlan(**(verdict.sampling or {}))
    (replies,) = draw_replies(model, [prompt.turn], plan, f"prompt {config.prompt}", first=config.prompt - 1)
    print(f"prompt {config.prompt} of {len(rows)}, {prompt.id}, with seed {plan.seed}:")
    for number, text in enumerate(replies, start=1):
        print(f"{number:4d}  {text!r}")
    other = [number for number, text in enumerate(replies) if text != stored["samples"][number]]
    if other:
        raise Refused(
            f"{len(other)} of {len(replies)} replies are not those that the gate of {stage} stored, reply"
            f" {other[0] + 1} the first: it was {stored['samples'][other[0]]!r:.80}; another kind of processor rounds"
            " otherwise"
        )
    print(f"They are the {len(replies)} replies that the gate stored.")
