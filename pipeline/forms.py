"""Gate prompts in other forms than text, for a model that sees or hears: `safety.parity` says what for."""

import functools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from base_model.checkpoint import LanguageModel
from pipeline.gates import draw_replies
from safety.demands import Parity, SamplingPlan
from safety.parity import FormSampler, NotRun
from safety.prompt_media import attachments, turn_of
from safety.prompts import GatePrompt

SIDE = 448  # pixels: what most encoders see at least
LETTER, LINE, MARGIN, COLUMNS = 22, 28, 16, 36  # pixels, pixels, pixels, letters
GREY = 128
RATE = 16_000  # samples a second


@functools.cache
def neutral_picture() -> np.ndarray:
    """A picture that says nothing: one even grey, uint8 [H, W, 3]."""
    return np.full((SIDE, SIDE, 3), GREY, np.uint8)


def silence() -> dict[str, Any]:
    """A second in which nothing is heard, as a sound that a row may hold."""
    return {"array": np.zeros(RATE, np.float32), "sampling_rate": RATE}


def picture_of_text(text: str) -> np.ndarray:
    """Black letters on white, as wide as `neutral_picture` and as high as the text needs, uint8 [H, W, 3].

    The font comes with Pillow and has Latin, Greek and Cyrillic letters; others become boxes.
    """
    lines = [part for line in text.splitlines() or [""] for part in textwrap.wrap(line, COLUMNS) or [""]]
    page = Image.new("RGB", (SIDE, max(SIDE, 2 * MARGIN + LINE * len(lines))), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(LETTER)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + LINE * number), line, "black", font)
    return np.asarray(page)


def form_samplers(
    model: LanguageModel, parity: Parity | None, label: str, *, check: Callable[[], object] = lambda: None
) -> Mapping[str, FormSampler | NotRun]:
    """For each form that a policy compares with text, what poses prompts so, or why this model cannot be asked.

    `check` is as in `gate_sampler`.
    """
    if parity is None:
        return {}
    folder = Path(parity.recordings or "")

    def posed(content: Callable[[GatePrompt], list[dict[str, Any]]]) -> FormSampler:
        def draw(prompts: Sequence[GatePrompt], plan: SamplingPlan) -> list[list[str]]:
            turns = [content(prompt) for prompt in prompts]
            return draw_replies(model, turns, plan, label, folder=folder, check=check)

        return draw

    seen = {
        "neutral_picture": posed(lambda prompt: [_image(neutral_picture()), *_parts(prompt)]),
        "picture_of_text": posed(lambda prompt: [_image(picture_of_text(prompt.text)), *_media(prompt)]),
    }
    heard = {
        "silence": posed(lambda prompt: [{"type": "audio", "audio": silence()}, *_parts(prompt)]),
        "speech": posed(lambda prompt: [{"type": "audio", "audio": f"{prompt.id}.wav"}, *_media(prompt)]),
    }
    blind, deaf = (NotRun(f"the model has no encoder of {what}") for what in ("pictures", "sounds"))
    samplers = {
        **{form: blind if model.config.vision is None else sampler for form, sampler in seen.items()},
        **{form: deaf if model.config.audio is None else sampler for form, sampler in heard.items()},
    }
    return {form: samplers[form] for form in parity.demanded}


def _parts(prompt: GatePrompt) -> list[dict[str, Any]]:
    return turn_of(prompt.content or (prompt.text,))


def _media(prompt: GatePrompt) -> list[dict[str, Any]]:
    """What comes with a prompt's text, whatever form that takes."""
    return turn_of(attachments(prompt.content))


def _image(picture: np.ndarray) -> dict[str, Any]:
    return {"type": "image", "image": picture}
