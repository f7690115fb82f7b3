"""What a gate needs of a model that draws: pictures at its prompts, and a detector that looks at them."""

from collections.abc import Sequence

import numpy as np

from base_model.checkpoint import LanguageModel
from base_model.drawing import draw_pictures
from pipeline.gates import conversation
from safety.demands import Drawings
from safety.drawings import Painter
from safety.parity import NotRun
from safety.picture_detector import PictureDetector, understood_detector
from safety.prompts import GatePrompt


def painter(model: LanguageModel) -> Painter | NotRun:
    """Draws the gate's prompts, posed as the user's turn; or says that this model draws nothing."""
    if model.tokenizer.image_codes is None:
        return NotRun("the model draws no pictures")

    def paint(prompts: Sequence[GatePrompt], demand: Drawings, seed: int) -> list[list[np.ndarray]]:
        turns = [conversation(model, prompt.turn) for prompt in prompts]
        return draw_pictures(model, turns, copies=demand.pictures, seed=seed)

    return paint


def detector_for(demand: Drawings | None, by: Painter | NotRun) -> PictureDetector | None:
    """The detector that a policy names, if there is anything to look at; prints what its user must be told.

    Raises:
        BadInput: there is no such detector, or it is not installed.
    """
    if demand is None or isinstance(by, NotRun):
        return None
    detector = understood_detector(demand.detector)()
    if detector.notice:
        print(detector.notice)
    return detector
