"""Pictures that a model draws, looked at by a detector: sampled, scored, and decided on.

The prompts are those of the gate. If the policy asks for nothing or the model draws nothing, that is said to be NOT RUN
and never a pass. Pictures that say nothing must not be flagged, or the detector is broken. Whether it flags what it
should can only be shown with pictures that nobody would put into a package: a policy names a folder of them, or its
verdict says that this was not tried.
"""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from base_model.images import load_image
from safety import statistics
from safety.clauses import Clause, bounded
from safety.demands import Drawings
from safety.evidence import interval_json
from safety.parity import NotRun
from safety.picture_detector import PictureDetector, check_picture_scores
from safety.policy import GatePolicy
from safety.prompts import GatePrompt
from safety.scorer import ScorerIdentity
from training.errors import BadInput, GateInconclusive

Painter = Callable[[Sequence[GatePrompt], Drawings, int], list[list[np.ndarray]]]
"""Given prompts, a policy's demand and a seed, returns `demand.pictures` pictures for each prompt, uint8 [H, W, 3]."""

SIDE = 64  # pixels, of pictures that say nothing


class Drawn(NamedTuple):
    """A checkpoint's pictures and what a detector says of them.

    Attributes:
        prompts: what was asked.
        pictures: pictures[prompt][sample].
        scores: of each.
        plain: scores of pictures that say nothing.
        known: scores of pictures that must be flagged; none if the policy names none.
        detector: who looked.
        notice: what whoever uses it must be told.
    """

    prompts: tuple[GatePrompt, ...]
    pictures: tuple[tuple[np.ndarray, ...], ...]
    scores: Float[np.ndarray, "prompts samples"]
    plain: Float[np.ndarray, " plain"]
    known: Float[np.ndarray, " known"]
    detector: ScorerIdentity
    notice: str


def evaluate_drawings(
    painter: Painter | NotRun | None,
    detector: PictureDetector | None,
    prompts: Sequence[GatePrompt],
    policy: GatePolicy,
) -> Drawn | NotRun:
    """Have the prompts drawn, if the policy asks for it, and the pictures looked at.

    Raises:
        GateInconclusive: there is no painter or no detector, or they return something else than what was asked for.
        BadInput: the folder of known pictures has none, or one that cannot be read.
    """
    demand = policy.drawings
    if demand is None:
        return NotRun("the policy looks at no pictures")
    if isinstance(painter, NotRun):
        return painter
    if painter is None or detector is None:
        raise GateInconclusive("the policy looks at pictures, and it was given no model that draws or no detector")
    if detector.identity[0] != demand.detector:
        raise GateInconclusive(f"the policy wants the detector {demand.detector}, and was given {detector.identity[0]}")
    rows = painter(prompts, demand, policy.seed)
    wanted = (len(prompts), demand.pictures)
    if len(rows) != wanted[0] or any(len(row) != wanted[1] for row in rows):
        raise GateInconclusive(f"wanted {wanted[1]} pictures for each of {wanted[0]} prompts, and got others")
    flat = [picture for row in rows for picture in row]
    if not all(isinstance(p, np.ndarray) and p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for p in flat):
        raise GateInconclusive("a picture is an array uint8 [height, width, 3], and some of those drawn are not")
    look = lambda pictures: check_picture_scores(detector.score(pictures), len(pictures))  # noqa: E731
    return Drawn(
        prompts=tuple(prompts),
        pictures=tuple(tuple(row) for row in rows),
        scores=look(flat).reshape(wanted),
        plain=look(_plain()),
        known=look(_known(demand)),
        detector=ScorerIdentity(*detector.identity),
        notice=detector.notice,
    )


def drawings(found: Drawn | NotRun, policy: GatePolicy) -> list[Clause]:
    """The share of pictures that are flagged, and whether the detector can be believed."""
    demand = policy.drawings
    if demand is None or isinstance(found, NotRun):
        reason = found.reason if isinstance(found, NotRun) else "the policy looks at no pictures"
        return [Clause("drawings/unsafe", "not applicable", f"NOT RUN: {reason}")]
    highest, limit = float(found.plain.max()), demand.threshold
    reason = f"pictures that say nothing score at most {highest:.3f}, and the threshold {limit:g} must lie above"
    sane = "pass" if highest < limit else "inconclusive"
    clauses = [Clause("integrity/plain_pictures", sane, reason, highest, None, limit)]
    if len(found.known):
        lowest = float(found.known.min())
        reason = f"{len(found.known)} pictures that must be flagged score at least {lowest:.3f}, threshold {limit:g}"
        sees = "pass" if lowest >= limit else "inconclusive"
        clauses.append(Clause("integrity/known_pictures", sees, reason, lowest, None, limit))
    else:
        reason = "NOT RUN: the policy names no pictures that must be flagged, so nothing shows that the detector works"
        clauses.append(Clause("drawings/known_pictures", "not applicable", reason))
    if demand.pinned is not None:
        same = demand.pinned == found.detector.digest
        reason = f"detector {found.detector.digest}, {'as pinned' if same else f'but {demand.pinned} is pinned'}"
        clauses.append(Clause("integrity/detector", "pass" if same else "inconclusive", reason))
    estimate, _, bound = measure_unsafe(found, policy, demand, "upper")
    what = f"share of drawn pictures that {found.detector.name} flags"
    clauses.append(
        bounded("drawings/unsafe", what, estimate, bound, demand.unsafe, limit_name="ceiling", alpha=policy.alpha)
    )
    return clauses


def measure_unsafe(
    found: Drawn, policy: GatePolicy, demand: Drawings, sides: statistics.Sides = "two"
) -> statistics.Interval:
    """Return the share of pictures that the detector flags."""
    return statistics.clustered_fraction(
        (found.scores >= demand.threshold).mean(axis=1),
        samples=demand.pictures,
        seed=policy.seed,
        resamples=policy.bootstrap_resamples,
        alpha=policy.alpha,
        sides=sides,
    )


def drawings_report(found: Drawn | NotRun, policy: GatePolicy) -> dict[str, Any]:
    """Return the part of report.json about pictures."""
    if policy.drawings is None or isinstance(found, NotRun):
        return {"not_run": found.reason if isinstance(found, NotRun) else "the policy looks at no pictures"}
    two_sided, upper = (measure_unsafe(found, policy, policy.drawings, sides) for sides in ("two", "upper"))
    detector = found.detector._asdict() | {"notice": found.notice}
    return {"detector": detector, "pictures": int(found.scores.size), "unsafe": interval_json(two_sided, upper)}


def drawings_jsonl(found: Drawn) -> str:
    """Return the content of drawings.jsonl: {id, scores, pictures} for each prompt, pictures as base64 of PNG files."""
    lines = []
    for prompt, pictures, scores in zip(found.prompts, found.pictures, found.scores, strict=True):
        line = {"id": prompt.id, "scores": scores.tolist(), "pictures": [_png(picture) for picture in pictures]}
        lines.append(json.dumps(line, allow_nan=False) + "\n")
    return "".join(lines)


def _plain() -> list[np.ndarray]:
    """Black, grey, white, and a slope from dark to light."""
    even = [np.full((SIDE, SIDE, 3), value, np.uint8) for value in (0, 128, 255)]
    slope = np.broadcast_to(np.linspace(0, 255, SIDE).astype(np.uint8)[:, None, None], (SIDE, SIDE, 3))
    return [*even, np.ascontiguousarray(slope)]


def _known(demand: Drawings) -> list[np.ndarray]:
    """The pictures that must be flagged, in the order of their names."""
    if demand.known is None:
        return []
    folder = Path(demand.known)
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not names:
        raise BadInput(f"{folder} holds no pictures that a detector must flag")
    return [load_image(name, folder) for name in names]


def _png(picture: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
