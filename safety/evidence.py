"""What a gate leaves beside its verdict, and how a later gate reads it: samples.jsonl and report.json.

samples.jsonl keeps the raw text of every continuation, one prompt a line, so that a parent can be scored again by the
very scorer that scores its child. report.json holds every metric with its interval, for the report page.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from safety import metrics, statistics
from safety.clauses import Clause
from safety.evaluation import Evaluation, measure, measure_difference, score_samples, strata
from safety.policy import GatePolicy
from safety.prompts import GatePrompt
from safety.scorer import Scorer
from safety.verdict import load
from training.digest import file_digest
from training.errors import BadInput, GateInconclusive

SCHEMA_VERSION = 1


def samples_jsonl(evaluation: Evaluation) -> str:
    """Return the content of samples.jsonl: {id, text, stratum, source, samples, scores} for each prompt, in order."""
    lines = []
    for row, (prompt, samples) in enumerate(zip(evaluation.prompts, evaluation.samples, strict=True)):
        scores = {label: [float(value) for value in values[row]] for label, values in evaluation.scores.items()}
        line = asdict(prompt) | {"samples": list(samples), "scores": scores}
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines)


def load_evaluation(gate_folder: str | os.PathLike, scorer: Scorer, policy: GatePolicy) -> Evaluation:
    """Read an earlier gate's samples and score them again, so that two stages share one scorer.

    If that gate used the same scorer, the scores must come out as they were stored: else either the scorer is not
    deterministic or something was changed.

    Raises:
        GateInconclusive: that gate did not pass, its samples are missing, altered, drawn otherwise than this policy
            says, or do not reproduce their scores.
    """
    folder = Path(gate_folder)
    path = folder / "samples.jsonl"
    try:
        verdict = load(folder)
        if not verdict.passed:
            raise GateInconclusive(f"{folder} is the gate of a {verdict.stage} that did not pass ({verdict.outcome})")
        if file_digest(path) != verdict.evidence.get("samples.jsonl"):
            raise GateInconclusive(f"{path} is not the file that its verdict attests")
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        prompts = [GatePrompt(**{key: row[key] for key in ("id", "text", "stratum", "source")}) for row in rows]
        samples = [row["samples"] for row in rows]
        stored = {label: np.array([row["scores"][label] for row in rows]) for label in rows[0]["scores"]}
    except (BadInput, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise GateInconclusive(f"the earlier gate in {folder} cannot be read: {error}") from error
    if verdict.sampling != asdict(policy.sampling):
        raise GateInconclusive(
            f"{folder} was sampled with {verdict.sampling}, this gate with {asdict(policy.sampling)}"
        )
    evaluation = score_samples(samples, prompts, scorer, policy)
    if verdict.prompts != evaluation.prompts_digest:
        raise GateInconclusive(f"{path} is about other prompts than its verdict")
    if verdict.scorer == evaluation.scorer._asdict():
        for label, scores in evaluation.scores.items():
            if label not in stored or not np.allclose(stored[label], scores, rtol=0, atol=1e-4):
                raise GateInconclusive(f"scoring {path} again gives other {label!r} scores")
    return evaluation


def interval_json(two_sided: statistics.Interval, upper: statistics.Interval) -> dict[str, float]:
    """Return {estimate, low, high, upper_bound}: a two-sided interval and the one-sided bound a gate decides on."""
    return two_sided._asdict() | {"upper_bound": upper.high}


def report(
    evaluation: Evaluation, policy: GatePolicy, clauses: Sequence[Clause], references: Mapping[str, Evaluation]
) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        evaluation: the checkpoint's.
        policy: the policy.
        clauses: what was decided.
        references: the evaluations compared with, by "parent" and "base".
    """
    groups = strata(evaluation)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "generations",
        "profile": policy.profile,
        "policy": policy.to_dict(),
        "scorer": evaluation.scorer._asdict(),
        "label": policy.label,
        "prompts": {
            "digest": evaluation.prompts_digest,
            "counts": {group: len(evaluation.rows(group)) for group in groups},
            "samples_per_prompt": policy.samples_per_prompt,
        },
        "metrics": {
            group: {label: _toxicity(evaluation, policy, group, label) for label in evaluation.scores}
            for group in groups
        },
        "utility": {
            group: metrics.utility([evaluation.samples[row] for row in evaluation.rows(group)])._asdict()
            for group in groups
        },
        "differences": {
            name: {group: _differences(evaluation, reference, policy, group) for group in groups}
            for name, reference in references.items()
        },
        "clauses": [clause._asdict() for clause in clauses],
    }


def report_json(content: Mapping[str, Any]) -> str:
    """Return a report as the text of report.json."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _toxicity(evaluation: Evaluation, policy: GatePolicy, stratum: str, label: str) -> dict[str, Any]:
    values: dict[str, Any] = {
        metric: interval_json(
            measure(evaluation, metric, policy, stratum=stratum, label=label),
            measure(evaluation, metric, policy, stratum=stratum, label=label, sides="upper"),
        )
        for metric in metrics.METRICS
    }
    scores = evaluation.scores[label][evaluation.rows(stratum)]
    values["emt"]["sd"] = metrics.expected_maximum_toxicity(scores).sd
    values["cdf_of_maximum"] = [list(point) for point in metrics.cumulative_maxima(scores)]
    return values


def _differences(
    evaluation: Evaluation, reference: Evaluation, policy: GatePolicy, stratum: str
) -> dict[str, dict[str, float]] | None:
    """Return each metric's paired difference; None if the two cannot be compared, which a clause then says."""
    try:
        return {
            metric: interval_json(
                measure_difference(evaluation, reference, metric, policy, stratum=stratum),
                measure_difference(evaluation, reference, metric, policy, stratum=stratum, sides="upper"),
            )
            for metric in metrics.METRICS
        }
    except GateInconclusive:
        return None
