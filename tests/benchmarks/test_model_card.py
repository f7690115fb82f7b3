"""The shipped model's card quotes the model: what it is said to write is written again from the folder."""

import json
import re
from pathlib import Path

import pytest

from base_model import checkpoint
from base_model.chat import messages_to_segments
from base_model.generate import generate
from base_model.interleave import interleave
from base_model.sampling import SamplingConfig
from benchmarks import model_card

CARD = (model_card.MODEL / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model():
    return checkpoint.load(model_card.MODEL)


def rows(header: str) -> list[list[str]]:
    """Cells of the card's table below a header line."""
    body = CARD.split(f"{header}\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body.splitlines()[1:]]


@pytest.mark.slow
def test_replies_are_those_that_the_model_writes(model):
    assert "temperature 0.7, top-p 0.95, seed 0" in CARD
    written = [[line["prompt"], line["reply"].replace("\n", " ")] for line in model_card.replies(model)["said"]]
    assert rows("| prompt | reply |") == written
    assert len(written) == len(model_card.PROMPTS)


def test_answers_about_pictures_are_those_that_the_model_writes(model):
    shown = rows("| picture | question | reply | right answer |")
    assert shown
    prompts = []
    for picture, question, _, _ in shown:
        folder, name = Path(re.findall(r"\((.*/)([^/]+)\)", picture)[0][0]), re.findall(r"([^/]+)\)$", picture)[0]
        content = [{"type": "image", "image": name}, {"type": "text", "text": question}]
        segments = messages_to_segments(
            [{"role": "user", "content": content}], model.tokenizer, folder=model_card.MODEL / folder, ending="reply"
        )
        prompts.append(interleave(segments, model.tokenizer, model.config))
    written = generate(model, prompts, SamplingConfig(max_new_tokens=8, temperature=0))
    assert [line[2] for line in shown] == [reply for (reply,) in written]


def test_the_card_is_the_one_of_its_measurement():
    assert CARD == model_card.card(json.loads(model_card.RESULT.read_text(encoding="utf-8")))
