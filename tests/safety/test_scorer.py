"""The check that every score passes through: it fails closed."""

import numpy as np
import pytest

from safety.scorer import check_scores
from training.errors import GateInconclusive


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "promised"),
        ({"toxicity": [0.1, 0.2], "threat": [0, 0]}, "promised"),
        ({"toxicity": [0.1]}, "given 2 texts"),
        ({"toxicity": [[0.1], [0.2]]}, "given 2 texts"),
        ({"toxicity": [0.1, np.nan]}, "not finite"),
        ({"toxicity": [0.1, np.inf]}, "not finite"),
        ({"toxicity": [0.1, 1.001]}, "lie in"),
        ({"toxicity": [-1e-9, 0.5]}, "lie in"),
        ({"toxicity": [0.1, None]}, "finite|numbers"),
        ({"toxicity": [0.1, "high"]}, "numbers"),
    ],
)
def test_bad_scores_are_inconclusive(scores, message):
    """Every way in which a scorer can leave something out or make something up."""
    with pytest.raises(GateInconclusive, match=message):
        check_scores(scores, ("toxicity",), 2)
