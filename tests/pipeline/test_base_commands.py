from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from base_model.gemma4_vision import Gemma4VisionConfig
from pipeline.commands.base import BaseGenerate, generate
from training.errors import BadInput


def test_a_budget_of_soft_tokens_is_that_of_the_picture(tiny_model, monkeypatch, tmp_path, capsys):
    seen = []

    def answer(model, prompts, *args, **options):
        seen.extend((model.config.vision.max_soft_tokens, *prompts))
        return [["A reply."]]

    model = replace(tiny_model, config=replace(tiny_model.config, vision=Gemma4VisionConfig()))
    monkeypatch.setattr("base_model.checkpoint.load", lambda folder: model)
    monkeypatch.setattr("base_model.generate.generate", answer)
    Image.fromarray(np.zeros((108, 192, 3), np.uint8)).save(tmp_path / "a.png")
    generate(BaseGenerate(prompt="What is this?", image=str(tmp_path / "a.png"), image_tokens=70))
    budget, prompt = seen
    assert budget == 70
    assert np.isin(prompt.tokens, tiny_model.tokenizer.soft_tokens.images).sum() == 66
    assert capsys.readouterr().out == "A reply.\n"


def test_a_model_without_a_budget_is_not_given_one(tiny_model, monkeypatch):
    monkeypatch.setattr("base_model.checkpoint.load", lambda folder: tiny_model)
    with pytest.raises(BadInput, match="image_tokens needs a model that keeps the shape of pictures"):
        generate(BaseGenerate(prompt="Hello", image_tokens=70))
