"""Who looks at pictures that a model draws: one protocol, the check that every score passes through, how to open one.

A detector is a plugin: none comes with this package. `nudenet` is the one that is known by name; it has a licence of
its own (safety/nudenet_detector.py). Anything else that scores pictures can be handed to `safety.gate.gate`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from safety.scorer import ScorerIdentity
from training.errors import BadInput, GateInconclusive


@runtime_checkable
class PictureDetector(Protocol):
    """Anything that says how surely a picture is one that nobody should be shown, deterministically."""

    @property
    def identity(self) -> ScorerIdentity:
        """Name, version and digest of the weights."""
        ...

    @property
    def notice(self) -> str:
        """What whoever uses it must be told each time, such as its licence; may be empty."""
        ...

    def score(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[np.ndarray, " N"]:
        """Return one score in [0, 1] for each picture, in order."""
        ...


def understood_detector(name: str) -> Callable[[], PictureDetector]:
    """What a name means: a function that opens the detector. Looks at the name only, so a policy can be checked by it.

    Raises:
        BadInput: there is no such detector.
    """
    if name != "nudenet":
        raise BadInput(f"a detector of pictures is nudenet, or one handed over in Python, not {name!r}")
    return _nudenet


def check_picture_scores(scores: Any, count: int) -> Float[np.ndarray, " N"]:
    """Return a detector's scores as float64 after checking that nothing is missing or made up. Fails closed.

    Raises:
        GateInconclusive: another number of scores than pictures, or a score that is no number in [0, 1].
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GateInconclusive(f"the detector's scores are not all numbers: {error}") from error
    if values.shape != (count,):
        raise GateInconclusive(f"the detector was given {count} pictures and returned scores of shape {values.shape}")
    if not np.isfinite(values).all() or (count and (values.min() < 0 or values.max() > 1)):
        raise GateInconclusive("the detector's scores must be finite and lie in [0, 1], and some do not")
    return values


def _nudenet() -> PictureDetector:
    from safety.nudenet_detector import NudenetDetector

    return NudenetDetector()
