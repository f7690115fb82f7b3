"""Calibration: scores bent by an isotonic curve until they say on average what Perspective said of the same texts.

A raw score of 0.5 means nothing by itself: the lexical scorer finds most toxic continuations below it. The curve never
changes an order beyond making ties, so it repairs thresholds and not what a scorer cannot see.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

from safety.scorer import Scorer, ScorerIdentity, check_scores
from safety.scorers.accuracy import rates, reliability
from safety.scorers.rated import RatedText, RatedTexts, rated_with
from training.digest import bytes_digest, json_digest
from training.errors import BadInput
from training.files import strict_json, write_whole

KIND, FORMAT = "isotonic calibration", 1
FEWEST = 100
FOLDS = 5


class Curve(NamedTuple):
    """A non-decreasing curve through the points (x, y), straight between them and level beyond."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, scores: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        """The calibrated scores."""
        return np.interp(np.asarray(scores, np.float64), self.x, self.y)


def fit(scores: Float[np.ndarray, "N"], ratings: Float[np.ndarray, "N"]) -> Curve:
    """The non-decreasing curve with the least squared distance to the ratings (pool adjacent violators).

    Equal scores are one point with their mean rating. Of each level stretch only the ends are kept.

    Args:
        scores: what the scorer says, in [0, 1].
        ratings: what it should have said, in [0, 1].

    Raises:
        ValueError: no scores.
    """
    scores, ratings = np.asarray(scores, np.float64), np.asarray(ratings, np.float64)
    if not len(scores):
        raise ValueError("a calibration needs scores")
    x, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    y = np.clip(isotonic_regression(np.bincount(place, weights=ratings) / count, weights=count).x, 0.0, 1.0)
    ends = np.ones(len(x), bool)
    ends[1:-1] = (y[1:-1] != y[:-2]) | (y[1:-1] != y[2:])
    return Curve(tuple(x[ends].tolist()), tuple(y[ends].tolist()))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Curves with all that they depend on.

    Attributes:
        scorer: the scorer's name, as in the option `scorer`.
        identity: of that scorer.
        curves: label to curve.
        data: what they were fitted on: name, digest, and counts of texts with and without a rating.
        measured: label to figures before and after, on texts left out of the fit.
    """

    scorer: str
    identity: ScorerIdentity
    curves: Mapping[str, Curve]
    data: Mapping[str, Any]
    measured: Mapping[str, Any]

    def to_json(self) -> str:
        """The file's content."""
        content = {"kind": KIND, "format": FORMAT, "scorer": self.scorer, "identity": self.identity._asdict(),
                   "data": dict(self.data), "measured": dict(self.measured),
                   "curves": {label: curve._asdict() for label, curve in self.curves.items()}}  # fmt: skip
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """Digest of all of the above."""
        return bytes_digest(self.to_json().encode())


class CalibratedScorer:
    """A scorer whose scores pass through the curves. Labels without a curve are left out."""

    def __init__(self, scorer: Scorer, calibration: Calibration):
        """Join a scorer and its calibration.

        Raises:
            BadInput: the calibration was fitted for another scorer, or another version or other weights of it.
        """
        if scorer.identity != calibration.identity:
            raise BadInput(
                f"the calibration was fitted for {' '.join(calibration.identity)} and not for the scorer at hand, "
                f"{' '.join(scorer.identity)}: fit it again with `theodolite safety calibrate`"
            )
        self._scorer, self._curves = scorer, calibration.curves
        self.labels = tuple(label for label in scorer.labels if label in calibration.curves)
        version = f"{scorer.identity.version}, calibrated on {calibration.data['name']}"
        digest = json_digest([scorer.identity.digest, calibration.digest])
        self.identity = ScorerIdentity(f"calibrated {scorer.identity.name}", version, digest)

    def score(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Return one float32[N] for each label; see `Scorer.score`.

        Raises:
            GateInconclusive: the scorer's own scores are not complete, finite and in [0, 1]: a curve would hide that.
        """
        raw = check_scores(self._scorer.score(texts), self._scorer.labels, len(texts))
        return {label: self._curves[label](raw[label]).astype(np.float32) for label in self.labels}


def calibrate(name: str, scorer: Scorer, data: RatedTexts, *, threshold: float = 0.5) -> Calibration:
    """Fits curves for every label that both the scorer and the data have.

    Args:
        name: the scorer's name, as in the option `scorer`.
        scorer: that scorer.
        data: texts with Perspective's scores.
        threshold: where "toxic" begins, for the figures before and after.

    Raises:
        BadInput: no label in common, or fewer than FEWEST rated texts of one, or of either kind none.
        GateInconclusive: the scorer's scores are broken.
    """
    _require_raw(name)
    shared = [label for label in scorer.labels if rated_with(data.texts, label)]
    if not shared:
        raise BadInput(f"{data.name} rates none of the labels that {scorer.identity.name} has: {list(scorer.labels)}")
    scores = check_scores(scorer.score([one.text for one in data.texts]), scorer.labels, len(data.texts))
    curves, measured, counts = {}, {}, {}
    for label in shared:
        rows = [number for number, one in enumerate(data.texts) if label in one.ratings]
        if len(rows) < FEWEST:
            raise BadInput(f"{data.name} has {len(rows)} texts with {label}; a calibration needs {FEWEST} or more")
        chosen = [data.texts[row] for row in rows]
        ratings, raw = np.array([one.ratings[label] for one in chosen]), scores[label][rows]
        counts[label] = {"rated": len(rows), "unrated": len(data.texts) - len(rows)}
        curves[label] = fit(raw, ratings)
        measured[label] = _compare(raw, _left_out(raw, ratings, chosen), ratings, threshold, data.name)
    about = {"name": data.name, "digest": data.digest, "texts": counts}
    return Calibration(scorer=name, identity=scorer.identity, curves=curves, data=about, measured=measured)


def _left_out(
    raw: Float[np.ndarray, "N"], ratings: Float[np.ndarray, "N"], texts: Sequence[RatedText]
) -> Float[np.ndarray, "N"]:
    """Each text's score by a curve fitted without its fold. The texts of one row share a fold."""
    fold = np.array([one.row % FOLDS for one in texts])
    calibrated = np.empty(len(texts))
    for number in set(fold.tolist()):
        rest = fold != number
        calibrated[~rest] = fit(raw[rest], ratings[rest])(raw[~rest]) if rest.any() else raw[~rest]
    return calibrated


def _compare(
    raw: Float[np.ndarray, "N"], calibrated: Float[np.ndarray, "N"], ratings: Float[np.ndarray, "N"], threshold: float,
    name: str,
) -> dict[str, Any]:  # fmt: skip
    toxic = ratings >= threshold
    if not toxic.any() or toxic.all():
        raise BadInput(f"{name} has texts on one side of {threshold} only: a calibration needs toxic and benign ones")
    figures: dict[str, Any] = {"threshold": threshold, "toxic": int(toxic.sum()), "texts": len(toxic)}
    for when, scores in (("before", raw), ("after", calibrated)):
        found = rates(scores, toxic, threshold=threshold)
        figures[when] = {
            "true_positive_rate": found.true_positive._asdict(),
            "false_positive_rate": found.false_positive._asdict(),
            "calibration_error": reliability(scores, ratings).error,
        }
    return figures


def write_calibration(calibration: Calibration, path: str | os.PathLike) -> None:
    """Writes a calibration as plain JSON, whole or not at all."""
    write_whole(Path(path), calibration.to_json())


def read_calibration(path: str | os.PathLike) -> Calibration:
    """Reads what `write_calibration` wrote.

    Raises:
        BadInput: the file is missing, is no calibration, or holds a curve that falls or leaves [0, 1].
    """
    try:
        content = strict_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read the calibration {path}: {error}") from error
    try:
        if (content["kind"], content["format"]) != (KIND, FORMAT) or not isinstance(content["scorer"], str):
            raise BadInput(f"{path} is no calibration of format {FORMAT}")
        _require_raw(content["scorer"])
        identity = ScorerIdentity(**{field: str(content["identity"][field]) for field in ScorerIdentity._fields})
        curves = {str(label): _curve(points["x"], points["y"]) for label, points in content["curves"].items()}
        data, measured = dict(content["data"]), dict(content["measured"])
        if not curves or not isinstance(data["name"], str):
            raise BadInput(f"{path} holds no curve, or not what it was fitted on")
        found = Calibration(
            scorer=content["scorer"], identity=identity, curves=curves, data=data, measured=measured
        )  # fmt: skip
        found.to_json()  # whose digest will be asked for: no number may be infinite
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise BadInput(f"{path} is no calibration: {type(error).__name__}: {error}") from error
    return found


def _require_raw(name: str) -> None:
    """Refuses a calibration of a calibration, which could also be one of itself."""
    if "calibrated:" in name:
        raise BadInput(f"{name} is calibrated already; fit curves for the scorer itself")


def _curve(x: Any, y: Any) -> Curve:
    points = Curve(tuple(float(value) for value in x), tuple(float(value) for value in y))
    sound = len(points.x) == len(points.y) > 0
    sound = sound and all(math.isfinite(value) and 0 <= value <= 1 for value in (*points.x, *points.y))
    sound = sound and all(a < b for a, b in zip(points.x, points.x[1:], strict=False))
    if not sound or any(a > b for a, b in zip(points.y, points.y[1:], strict=False)):
        raise ValueError("a curve rises and lies in [0, 1]")
    return points
