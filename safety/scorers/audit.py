"""A scorer's measured weaknesses: what it misses, what it flags wrongly, how far its numbers can be taken literally.

    theodolite safety audit-scorer DATA.jsonl scorer=lexical out=runs/mine/scorer_audit.json

The report of a run prints the audit of exactly the scorer that its gates used: the run's own scorer_audit.json, or one
that comes with the package.
"""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from safety.scorer import Scorer, ScorerIdentity, check_scores
from safety.scorers.accuracy import auc, rates, reliability
from safety.scorers.bias import identity_bias
from safety.scorers.rated import RatedText, RatedTexts
from safety.scorers.subgroups import SubgroupAucs, subgroup_aucs
from training.errors import BadInput

KIND, FORMAT = "scorer audit", 1
FILE = "scorer_audit.json"
PACKAGED = Path(__file__).parents[1] / "data" / "audit_lexical.json"
DIGITS = 4
KINDS = SubgroupAucs._fields


def audit(name: str, scorer: Scorer, data: Sequence[RatedTexts], *, threshold: float = 0.5) -> dict[str, Any]:
    """Measures a scorer on rated texts and on neutral sentences that name groups of people.

    Prompts and continuations of RealToxicityPrompts are measured apart: a row has one of each. Where rows name the
    group of people that a text is about, each group has AUCs of its own.

    Args:
        name: the scorer's name, as in the option `scorer`.
        scorer: that scorer.
        data: data sets; each is reported by itself.
        threshold: where "toxic" begins, for scores and ratings.

    Returns:
        The content of an audit file: figures only, no text of the data.

    Raises:
        BadInput: no data set rates a label of the scorer on both sides of the threshold.
        GateInconclusive: the scorer's scores are broken.
    """
    if not 0 < threshold < 1:
        raise BadInput(f"a threshold lies between 0 and 1, not at {threshold}")
    sets = [found for one in data for found in _measure(scorer, one, threshold)]
    if not any(found["labels"] for found in sets):
        labels = list(scorer.labels)
        raise BadInput(
            f"nothing to audit on: no data set rates {labels} with texts on both sides of the threshold {threshold}"
        )
    biased = "toxicity" if "toxicity" in scorer.labels else scorer.labels[0]
    bias = identity_bias(scorer, label=biased, threshold=threshold)
    content = {"kind": KIND, "format": FORMAT, "named": name, "scorer": scorer.identity._asdict(),
               "threshold": threshold, "data": sets, "identity_bias": {"label": biased, **bias}}  # fmt: skip
    return _rounded(content)


def _measure(scorer: Scorer, data: RatedTexts, threshold: float) -> list[dict[str, Any]]:
    found = []
    for part in ("prompt", "continuation", "text"):
        texts = data.part(part)
        if not texts:
            continue
        scores = check_scores(scorer.score([one.text for one in texts]), scorer.labels, len(texts))
        labels = {label: _agreement(texts, values, label, threshold) for label, values in scores.items()}
        found.append({
            "name": data.name, "digest": data.digest, "part": part, "texts": len(texts),
            "labels": {label: values for label, values in labels.items() if values is not None},
        })  # fmt: skip
    return found


def _agreement(texts: Sequence[RatedText], scores: np.ndarray, label: str, threshold: float) -> dict[str, Any] | None:
    """None where the data do not rate that label, or all on one side of the threshold."""
    rows = [row for row, one in enumerate(texts) if label in one.ratings]
    ratings = np.array([texts[row].ratings[label] for row in rows])
    toxic = ratings >= threshold
    if not toxic.any() or toxic.all():
        return None
    groups = _by_group([texts[row].groups for row in rows], scores[rows], toxic)
    found = rates(scores[rows], toxic, threshold=threshold)
    curve = reliability(scores[rows], ratings)
    bins = [
        {"score": float(predicted), "rating": float(observed), "texts": int(count)}
        for predicted, observed, count in zip(curve.predicted, curve.observed, curve.count, strict=True)
        if count
    ]
    return {
        "rated": len(rows),
        "unrated": len(texts) - len(rows),
        "toxic": int(toxic.sum()),
        "auc": auc(scores[rows], toxic)._asdict(),
        "true_positive_rate": found.true_positive._asdict(),
        "false_positive_rate": found.false_positive._asdict(),
        "calibration_error": curve.error,
        "reliability": bins,
    } | ({"groups": groups} if groups else {})


def _by_group(groups: Sequence[Sequence[str]], scores: np.ndarray, toxic: np.ndarray) -> list[dict[str, Any]]:
    """AUCs of each group that some text is about, those with the lowest one first."""
    found = []
    for name in sorted({group for of_text in groups for group in of_text}):
        member = np.array([name in of_text for of_text in groups])
        aucs = subgroup_aucs(scores, toxic, member)._asdict()
        aucs = {kind: None if one is None else one._asdict() for kind, one in aucs.items()}
        found.append({"group": name, "texts": int(member.sum()), "toxic": int((member & toxic).sum()), **aucs})
    lowest = lambda one: min([one[kind]["estimate"] for kind in KINDS if one[kind]], default=2.0)  # noqa: E731
    return sorted(found, key=lambda one: (lowest(one), one["group"]))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def audit_json(content: dict[str, Any]) -> str:
    """An audit as the text of its file."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def read_audit(path: str | os.PathLike) -> dict[str, Any]:
    """Reads an audit file.

    Raises:
        BadInput: the file is missing, is no audit, or holds a number that is not finite.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read the audit {path}: {error}") from error
    if not isinstance(content, dict) or (content.get("kind"), content.get("format")) != (KIND, FORMAT):
        raise BadInput(f"{path} is no scorer audit of format {FORMAT}")
    if not isinstance(content.get("scorer"), dict) or not isinstance(content.get("data"), list):
        raise BadInput(f"{path} is a scorer audit that lacks its scorer or its data")
    if not _finite(content):
        raise BadInput(f"{path} holds numbers that are not finite")
    return content


def _finite(value: Any) -> bool:
    if isinstance(value, dict | list):
        return all(_finite(part) for part in (value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def audit_of(scorer: ScorerIdentity, folder: Path) -> dict[str, Any] | None:
    """The audit of exactly that scorer: from a run's folder, or else from the package; None if there is none.

    Raises:
        BadInput: the folder's audit cannot be read.
    """
    own = folder / FILE
    found = [read_audit(path) for path in (own, PACKAGED) if path.exists()]
    return next((one for one in found if one["scorer"].get("digest") == scorer.digest), None)
