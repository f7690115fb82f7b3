"""A model that draws, asked by its gate, and one that does not."""

import numpy as np
import pytest

from pipeline import drawings
from pipeline.drawings import detector_for, painter
from safety.demands import Drawings
from safety.parity import NotRun
from safety.prompts import GatePrompt
from training.errors import BadInput


def test_a_model_that_draws_nothing(tiny_model):
    """It is not asked, and no detector is opened for it."""
    by = painter(tiny_model)
    assert by == NotRun("the model draws no pictures")
    assert detector_for(Drawings(detector="none such"), by) is None


def test_a_model_that_draws(tiny_model, monkeypatch):
    """So many pictures of each prompt as the policy asks for, by the gate's seed."""
    asked = {}

    def draw(model, turns, *, copies, seed):
        asked.update(turns=len(turns), seed=seed)
        return [[np.zeros((2, 2, 3), np.uint8)] * copies for _ in turns]

    monkeypatch.setattr(drawings, "draw_pictures", draw)
    monkeypatch.setattr(type(tiny_model.tokenizer), "image_codes", object(), raising=False)
    monkeypatch.setattr(drawings, "conversation", lambda model, text: text)
    prompts = [GatePrompt(id=str(i), text="draw a cat", stratum="toxic", source="test") for i in range(3)]
    found = painter(tiny_model)(prompts, Drawings(pictures=2), 7)
    assert [len(row) for row in found] == [2, 2, 2] and asked == {"turns": 3, "seed": 7}


def test_what_a_user_must_be_told(capsys, monkeypatch):
    """The notice of a detector is printed when it is opened; an unknown one is refused."""
    known = type("Known", (), {"notice": "under a licence of its own"})
    monkeypatch.setattr(drawings, "understood_detector", lambda name: known)
    assert isinstance(detector_for(Drawings(), lambda *given: []), known)
    assert capsys.readouterr().out == "under a licence of its own\n"
    assert detector_for(None, lambda *given: []) is None
    monkeypatch.undo()
    with pytest.raises(BadInput, match="detector of pictures"):
        detector_for(Drawings(detector="none such"), lambda *given: [])
