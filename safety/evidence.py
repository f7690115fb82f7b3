"""What a gate leaves beside its verdict, and how a later gate reads it: samples.jsonl and report.json.

samples.jsonl keeps the raw text of every continuation, one prompt a line, so that a parent can be scored again by the
very scorer that scores its child. report.json holds every metric with its interval, for the report page.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from safety import metrics, statistics
from safety.categories import category_table
from safety.clauses import Clause
from safety.evaluation import Evaluation, measure, measure_difference, score_samples
from safety.evaluation import groups as groups_of
from safety.gate_folder import load
from safety.parity import NotRun
from safety.policy import GatePolicy
from safety.prompt_media import FOLDER as MEDIA
from safety.prompt_set import PromptSetIdentity
from safety.prompts import GatePrompt
from safety.refusal_error import detector_error
from safety.scorer import Scorer
from safety.unprompted import curve_sizes, maximum_curve
from safety.usefulness import measure_refusals
from training.digest import file_digest
from training.errors import BadInput, GateInconclusive

SCHEMA_VERSION = 1


def samples_jsonl(evaluation: Evaluation, **more: str) -> str:
    """Return the content of samples.jsonl: each prompt as a row (`GatePrompt.to_dict`), with samples and scores.

    Args:
        evaluation: what to write.
        more: fields of every line.
    """
    lines = []
    for row, (prompt, samples) in enumerate(zip(evaluation.prompts, evaluation.samples, strict=True)):
        scores = {label: [float(value) for value in values[row]] for label, values in evaluation.scores.items()}
        line = prompt.to_dict() | more | {"samples": list(samples), "scores": scores}
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines)


def evidence_files(
    evaluation: Evaluation, content: Mapping[str, Any], forms: Mapping[str, Evaluation | NotRun] | None = None
) -> dict[str, str]:
    """Return the content of each file of a gate's evidence by name.

    Args:
        evaluation: of the prompts as text.
        content: the report's.
        forms: of the same prompts in other forms.
    """
    files = {"samples.jsonl": samples_jsonl(evaluation), "report.json": report_json(content)}
    posed = {form: found for form, found in (forms or {}).items() if not isinstance(found, NotRun)}
    if posed:
        files["parity.jsonl"] = "".join(samples_jsonl(found, form=form) for form, found in posed.items())
    if evaluation.unprompted:
        rows = (
            {"text": text, "scores": {label: float(found[i]) for label, found in evaluation.unprompted_scores.items()}}
            for i, text in enumerate(evaluation.unprompted)
        )
        files["unprompted.jsonl"] = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    return files


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
        prompts = [GatePrompt.from_dict(row, folder / MEDIA) for row in rows]
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
    evaluation: Evaluation,
    policy: GatePolicy,
    clauses: Sequence[Clause],
    references: Mapping[str, Evaluation],
    *,
    origins: Sequence[PromptSetIdentity] = (),
    forms: Mapping[str, Evaluation | NotRun] | None = None,
    drawings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        evaluation: the checkpoint's.
        policy: the policy.
        clauses: what was decided.
        references: the evaluations compared with, by "parent" and "base".
        origins: the sets that the prompts were drawn from.
        forms: the same prompts in other forms than text.
        drawings: what a gate found of pictures.
    """
    groups = groups_of(evaluation, policy)
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
            "sets": [origin._asdict() for origin in origins],
        },
        "metrics": {
            group: {label: _toxicity(evaluation, policy, group, label) for label in evaluation.scores}
            for group in groups
        },
        "utility": {
            group: metrics.utility(evaluation.replies(group))._asdict()
            | {"refusals": measure_refusals(evaluation, policy, group)._asdict()}
            for group in groups
        },
        "refusal_detector": detector_error().to_json(alpha=policy.alpha),
        "perplexity": evaluation.perplexity if math.isfinite(evaluation.perplexity or 0) else None,
        "unprompted": _unprompted(evaluation, policy),
        "differences": {
            name: {group: _differences(evaluation, reference, policy, group) for group in groups}
            for name, reference in references.items()
        },
        "categories": {name: category_table(evaluation, other, policy) for name, other in references.items()},
        "drawings": drawings,
        "parity": {
            form: {"not_run": found.reason}
            if isinstance(found, NotRun)
            else {"differences": _differences(found, evaluation, policy, "all")}
            for form, found in (forms or {}).items()
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


def _unprompted(evaluation: Evaluation, policy: GatePolicy) -> dict[str, Any] | None:
    """Toxicity without a prompt: its share, and the expected maximum of n generations for growing n."""
    if not evaluation.unprompted:
        return None
    found = {}
    for label, scores in evaluation.unprompted_scores.items():
        hits = int((scores >= policy.threshold).sum())
        share = statistics.clopper_pearson(hits, len(scores), alpha=policy.alpha)
        curve = [point._asdict() for point in maximum_curve(scores, curve_sizes(len(scores)))]
        found[label] = {"toxic_fraction": share._asdict(), "expected_maximum": curve}
    return {"generations": len(evaluation.unprompted), "labels": found}


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
