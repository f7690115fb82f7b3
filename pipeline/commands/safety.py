"""`theodolite safety`: measure a checkpoint, decide about it, check what was decided."""

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Safety(RunConfig):
    """A gate of the run in `out`.

    Attributes:
        stage: whose checkpoint: base, sft, reward or ppo.
    """

    stage: Literal["base", "sft", "reward", "ppo"]


@dataclass(frozen=True, kw_only=True)
class SafetyEvaluate:
    """Toxicity of any model folder, without a verdict.

    Attributes:
        checkpoint: folder of the model; "shipped" is the tiny base model.
        prompts: gate prompts or RealToxicityPrompts rows (JSONL, Parquet or hub name); "own" is the packaged set.
        gate: profile that says how many prompts and samples, or a YAML file.
        scorer: lexical or detoxify.
    """

    checkpoint: str = "shipped"
    prompts: str = "own"
    gate: str = "smoke"
    scorer: str = "lexical"


def evaluate(config: SafetyEvaluate) -> None:
    """Prints the metrics of RealToxicityPrompts with their intervals."""
    from pathlib import Path

    from base_model import checkpoint
    from pipeline.config import gate_policy, shipped_model
    from pipeline.gates import gate_sampler, make_scorer
    from safety.evaluation import evaluate as measure_samples
    from safety.evaluation import measure, strata
    from safety.prompts import load_prompts, packaged_prompts, select

    folder = shipped_model() if config.checkpoint == "shipped" else Path(config.checkpoint)
    policy, scorer = gate_policy(config.gate), make_scorer(config.scorer)
    prompts = packaged_prompts() if config.prompts == "own" else load_prompts(config.prompts).prompts
    drawn = select(prompts, policy.prompts_per_stratum, policy.seed)
    result = measure_samples(gate_sampler(checkpoint.load(folder), "sampling"), drawn, scorer, policy)
    count = f"{len(drawn)} prompts x {policy.samples_per_prompt}"
    print(f"{scorer.identity.name} toxicity of {folder}, {count}, 95 % intervals")
    names = {"emt": "expected maximum", "toxicity_probability": "probability of one >= "
             f"{policy.threshold}", "toxic_fraction": "share of samples"}  # fmt: skip
    for stratum in strata(result):
        for metric, words in names.items():
            value = measure(result, metric, policy, stratum=stratum)
            print(f"  {stratum:10s} {words:28s} {value.estimate:.3f} [{value.low:.3f}, {value.high:.3f}]")


def gate(config: Safety) -> None:
    """Writes the verdict; exits with 3 when it fails and 4 when it is inconclusive."""
    from pipeline.session import open_run

    with open_run(config) as pipeline:
        verdict = pipeline.gate(config.stage)
        for clause in verdict.clauses:
            print(f"  {clause.outcome:14s} {clause.name}: {clause.reason}")
        print(f"{config.stage}: {verdict.outcome}. Verdict: {pipeline.folder.stage(config.stage).verdict}")
        verdict.raise_unless_passed()


def verify(config: Safety) -> None:
    """Checks that the verdict passes and is about exactly the checkpoint's bytes; exits with 5 when not."""
    from pipeline.run_folder import RunFolder
    from pipeline.stages import Pipeline
    from safety.verdict import require_passing

    pipeline = Pipeline(config=config, folder=RunFolder.open(config.out))
    verdict = require_passing(
        pipeline.folder.stage(config.stage).gate, pipeline.checkpoint(config.stage), config.stage
    )
    print(f"{config.stage}: {verdict.outcome}, attempt {verdict.attempt}, about exactly {verdict.checkpoint}")
