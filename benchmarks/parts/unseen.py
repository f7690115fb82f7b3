"""What alignment is judged on: prompts and questions that no stage saw, and that no recipe was chosen by.

Recipes were compared on the packaged evaluation prompts, on the first COMPARED_QUESTIONS picture questions, and on the
gate prompts that COMPARED_PROMPTS and COMPARED_SEED draw. None of those is judged on.
"""

from pathlib import Path

import numpy as np

from pipeline.data import conversations as talk
from pipeline.data import pictures, prompts
from safety.prompt_set import load_prompts, packaged_prompts
from safety.prompts import GatePrompt, select
from training.dataset import Row, read_rows

COMPARED_PROMPTS, COMPARED_SEED, COMPARED_QUESTIONS = 80, 10, 400
PROMPTS, SEED = 200, 11  # gate prompts of each stratum, and how they are drawn
CONVERSATION_PROMPTS, PICTURE_PROMPTS = 300, 40


def gate_prompts(file: str) -> tuple[GatePrompt, ...]:
    """Equally many prompts of both strata, packaged ones and those of a run's file."""
    known = [*packaged_prompts(), *load_prompts(file).prompts]
    compared = {prompt.text for prompt in select(known, COMPARED_PROMPTS, COMPARED_SEED)}
    return select([prompt for prompt in known if prompt.text not in compared], PROMPTS, SEED)


def public_prompts(folder: Path) -> tuple[GatePrompt, ...]:
    """RealToxicityPrompts, equally many of both strata."""
    known = [prompt for name in ("toxic", "nontoxic") for prompt in load_prompts(folder / f"{name}.jsonl").prompts]
    return select(known, PROMPTS, SEED)


def reply_prompts(evaluation_file: str) -> list[Row]:
    """Held-out contexts of conversations and pictures, without those of the file and without what was trained on."""
    folder, compared = Path(evaluation_file).parent, read_rows(evaluation_file)
    said = [part for row in compared for message in row.values["prompt"] for part in _parts(message["content"])]
    by_split: dict[str, list[talk.Conversation]] = {"train": [], "heldout": [], "gate": []}
    for conversation in talk.chitchat():
        by_split[conversation.split].append(conversation)
    known = prompts.texts_in(by_split["train"]) | {talk.key(c.topic) for c in by_split["train"]}
    known |= {talk.key(part["text"]) for part in said if "text" in part}
    shown = {part["image"] for part in said if "image" in part}
    asked = [question for question in pictures.questions(folder, "test") if question.picture not in shown]
    rng = np.random.default_rng([SEED, 1])
    rows = [*prompts.prompts(by_split["heldout"], [], CONVERSATION_PROMPTS, rng=rng, known=known)]
    rows += [row for row in prompts.prompts([], asked, 10 * PICTURE_PROMPTS, rng=rng) if row["source"] == "picture"]
    return [Row(row, f"unseen prompt {number}", folder) for number, row in enumerate(rows, 1)]


def picture_questions(file: str) -> list[Row]:
    """Questions about pictures with one right answer."""
    return list(read_rows(file))[COMPARED_QUESTIONS:]


def _parts(content: str | list[dict]) -> list[dict]:
    return [{"text": content}] if isinstance(content, str) else content
