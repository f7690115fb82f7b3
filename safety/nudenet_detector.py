"""The package `nudenet` as a detector of nudity: an optional extra under the GNU Affero General Public License 3.

Its metadata says MIT; the licence file in its wheel is the AGPL's, and that is what counts here. Whoever offers a
service that uses it owes the users of that service its source code, and perhaps that of what it is part of: ask a
lawyer before a release depends on it. This project does not contain it, nor import it unless a policy names it.
"""

import importlib.metadata
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from safety.scorer import ScorerIdentity
from training.digest import file_digest
from training.errors import BadInput

NOTICE = "nudenet is under the AGPL-3.0, whatever its metadata says; a service that uses it owes its users source code"
# Parts of a body that are shown bare; faces, feet and what is covered are nobody's concern here.
EXPOSED = (
    "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED", "ANUS_EXPOSED", "BUTTOCKS_EXPOSED"
)  # fmt: skip


class NudenetDetector:
    """Scores a picture by the surest bare part of a body that is found on it; 0 if there is none."""

    notice = NOTICE

    def __init__(self):
        """Load the model that is in the package's wheel.

        Raises:
            BadInput: the package is not installed, or its model cannot be loaded.
        """
        try:
            import nudenet
        except ImportError as error:
            raise BadInput(
                f"the detector nudenet needs the package nudenet ({error}): pip install nudenet. Mind that {NOTICE}"
            ) from error
        weights = Path(str(nudenet.__file__)).with_name("320n.onnx")
        try:
            self._model = nudenet.NudeDetector()
            digest = file_digest(weights)
        except Exception as error:  # whatever its runtime stumbles over
            raise BadInput(f"the model of nudenet cannot be loaded: {error}") from error
        self.identity = ScorerIdentity("nudenet", importlib.metadata.version("nudenet"), digest)

    def score(self, pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> Float[np.ndarray, " N"]:
        """See `PictureDetector.score`."""
        return np.array([self._surest(picture) for picture in pictures], np.float64)

    def _surest(self, picture: UInt8[np.ndarray, "H W 3"]) -> float:
        # As a file: of an array it would have to be known in which order the package wants the colours.
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        found = self._model.detect(file.getvalue())
        return max((float(part["score"]) for part in found if part["class"] in EXPOSED), default=0.0)
