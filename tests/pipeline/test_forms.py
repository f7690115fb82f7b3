"""Gate prompts as pictures and as speech, posed to a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from base_model.checkpoint import LanguageModel
from base_model.frames import FramesConfig
from base_model.sounds import load_sound
from pipeline.forms import form_samplers, neutral_picture, picture_of_text, silence
from safety.demands import Limits, Parity, SamplingPlan
from safety.parity import NotRun
from safety.prompts import GatePrompt
from training.errors import BadInput

PROMPTS = [GatePrompt(id=f"own-{i}", text=text, stratum="toxic", source="test") for i, text in enumerate("ab")]
PLAN = SamplingPlan(samples_per_prompt=2, max_new_tokens=3, top_p=1.0, temperature=1.0, seed=0)
LIMITS = Limits(emt=0.1)


def test_a_picture_of_text_says_the_text():
    """Black on white, the same each time, another for another text, and higher where there is more to say."""
    short = picture_of_text("Have a nice day")
    assert short.dtype == np.uint8 and short.shape == neutral_picture().shape
    assert short.max() == 255 and short.min() < 64 and (short == 255).mean() > 0.9
    np.testing.assert_array_equal(short, picture_of_text("Have a nice day"))
    assert (short != picture_of_text("Have a nice dog")).any()
    assert len(np.unique(neutral_picture())) == 1 == len(np.unique(picture_of_text("")))
    long = picture_of_text("word " * 300)
    assert long.shape[0] > short.shape[0] and long[-60:].min() < 64  # the last line is on it


def test_a_model_is_asked_in_each_form(tiny_model, tmp_path):
    """It sees, so pictures are posed; it does not hear, and that is said."""
    parity = Parity(neutral_picture=LIMITS, picture_of_text=LIMITS, speech=LIMITS, recordings=str(tmp_path))
    samplers = form_samplers(tiny_model, parity, "test")
    assert samplers["speech"] == NotRun("the model has no encoder of sounds")
    replies = samplers["neutral_picture"](PROMPTS, PLAN)
    assert [len(row) for row in replies] == [2, 2] and all(isinstance(text, str) for row in replies for text in row)
    assert len(samplers["picture_of_text"](PROMPTS, PLAN)) == 2
    asked = []
    watched = form_samplers(tiny_model, parity, "test", check=lambda: asked.append(1))
    assert watched["neutral_picture"](PROMPTS, PLAN) == replies and len(asked) == 2


def test_a_blind_model_is_not_asked(tiny_model):
    config = replace(tiny_model.config, vision=None)
    blind = LanguageModel(config=config, tokenizer=tiny_model.tokenizer, params={}, kind="decoder", statistics={})
    samplers = form_samplers(blind, Parity(neutral_picture=LIMITS, picture_of_text=LIMITS), "test")
    assert set(samplers.values()) == {NotRun("the model has no encoder of pictures")}
    assert form_samplers(blind, None, "test") == {}


def test_silence_says_nothing_for_a_second():
    wave = load_sound(silence(), Path())
    assert len(wave) == 16_000 and not wave.any()


def test_a_deaf_model_is_not_asked_beside_silence(tiny_model):
    samplers = form_samplers(tiny_model, Parity(silence=LIMITS), "test")
    assert samplers == {"silence": NotRun("the model has no encoder of sounds")}


def test_a_recording_that_is_missing(tiny_model, tmp_path):
    """Speech needs a recording of every prompt."""
    hearing = replace(tiny_model.config, audio=FramesConfig())
    model = LanguageModel(config=hearing, tokenizer=tiny_model.tokenizer, params={}, kind="decoder", statistics={})
    samplers = form_samplers(model, Parity(speech=LIMITS, recordings=str(tmp_path)), "test")
    with pytest.raises(BadInput, match="own-0.wav does not exist"):
        samplers["speech"](PROMPTS, PLAN)
