"""Training, evaluation and gate files out of pip packages: real conversations, pictures with questions, emoji.

One split by conversation (train, held-out, gate) holds for every file; pictures keep easy-vqa's own split.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.data import conversations as talk
from pipeline.data import pictures, preference_pairs, prompts
from pipeline.data.conversations import Conversation, Rows, Turn, alternating, conversation_rows, dialogue_rows, pieces
from pipeline.data.manifest import described, finished, recipe, stored_pictures
from pipeline.data.pictures import Emoji, Question, emoji_rows, question_rows

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the files are made of, by split.

    Attributes:
        conversations: `train`, `heldout`, `gate`.
        dialogues: Of chatterbot-corpus: `train`, `heldout`.
        asked: Questions about pictures: `train`, `test`.
        named: Emoji: `train`, `test`.
    """

    conversations: dict[str, list[Conversation]]
    dialogues: dict[str, list[tuple[Turn, ...]]]
    asked: dict[str, list[Question]]
    named: dict[str, list[Emoji]]


def shuffled(rows: Sequence[T], rng: np.random.Generator, count: int | None = None) -> list[T]:
    """The rows (or questions) in a random order, or `count` of them."""
    return [rows[i] for i in rng.permutation(len(rows))[:count]]


def unseen(rows: Rows, train: Rows) -> Rows:
    """The rows whose messages are not exactly those of a row in `train`."""

    def said(row: dict) -> tuple[str, ...]:
        return tuple(str(message["content"]) for message in row["messages"])

    seen = {said(row) for row in train}
    return [row for row in rows if said(row) not in seen]


def pretraining(material: Material, rng: np.random.Generator) -> dict[str, Rows]:
    """Everything of the training split, toxic messages included, and a small held-out file of the same kinds."""
    chat, said = material.conversations, material.dialogues
    spoken = conversation_rows(chat["train"]) + dialogue_rows(said["train"])
    train = (
        spoken
        + question_rows(material.asked["train"], per_row=2, rng=rng)
        + emoji_rows(material.named["train"], phrasings=2, rng=rng)
    )
    heldout = (
        shuffled(unseen(conversation_rows(chat["heldout"]) + dialogue_rows(said["heldout"]), spoken), rng, 400)
        + shuffled(question_rows(material.asked["test"], per_row=2, rng=rng), rng, 500)
        + shuffled(emoji_rows(material.named["test"], phrasings=1, rng=rng), rng, 100)
    )
    return {"pretrain": shuffled(train, rng), "pretrain_heldout": shuffled(heldout, rng)}


def finetuning(material: Material, rng: np.random.Generator) -> dict[str, Rows]:
    """Rows that end in a reply, none of whose messages is toxic; one question for each picture row."""

    def spoken(split: str) -> Rows:
        whole = [(piece, "chitchat") for c in material.conversations[split] for piece in pieces(c)]
        rows = []
        for turns, source in whole + [(dialogue, "chatterbot") for dialogue in material.dialogues[split]]:
            kept = turns[: len(turns) // 2 * 2]
            if kept and max(turn.toxicity for turn in kept) <= 0.5:
                rows.append({"messages": alternating([turn.text for turn in kept]), "source": source})
        return rows

    def asked(split: str, count: int) -> Rows:
        return question_rows(pictures.balanced(material.asked[split], count, rng=rng), per_row=1, rng=rng)

    chat = spoken("train")
    train = chat + asked("train", 8000) + emoji_rows(material.named["train"], phrasings=2, rng=rng)
    new = unseen(spoken("heldout"), chat)
    heldout = (
        shuffled([row for row in new if row["source"] == "chitchat"], rng, 160)
        + shuffled([row for row in new if row["source"] == "chatterbot"], rng, 40)
        + asked("test", 140)
        + shuffled(emoji_rows(material.named["test"], phrasings=1, rng=rng), rng, 60)
    )
    return {"sft": shuffled(train, rng), "sft_heldout": shuffled(heldout, rng)}


def preferences(material: Material, known: set[str], rng: np.random.Generator) -> dict[str, Rows]:
    """Pairs of all six sources; `known` are keys of contexts that the held-out pairs must not have."""
    files = {}
    for name, split, pictured, counts in (
        ("preferences", "train", "train", (800, 4000, 4500, 500, 700)),
        ("preferences_heldout", "heldout", "test", (400, 400, 320, 100, 100)),
    ):
        chat = material.conversations[split]
        learned = files.get("preferences", [])  # empty while the training split is made
        used = {talk.key(*(str(message["content"]) for message in row["prompt"])) for row in learned}
        avoided = known | used if split == "heldout" else set()
        rows = preference_pairs.rated(chat) + preference_pairs.relevance(chat, counts[0], avoided, rng)
        rows += preference_pairs.toxicity(chat, counts[1], avoided, rng)
        rows += preference_pairs.picture(material.asked[pictured], counts[2], rng)
        rows += preference_pairs.off_topic(material.asked[pictured], chat, counts[3], rng)
        rows += preference_pairs.unfinished(chat, counts[4], avoided, rng)
        files[name] = shuffled(rows, rng)
    return files


def prompting(material: Material, known: set[str], rng: np.random.Generator) -> dict[str, Rows]:
    """Prompts of PPO, of the evaluation and of the gate; the latter two share no text with what is trained on."""
    chat = material.conversations
    evaluated = prompts.texts_in(chat["heldout"])
    return {
        "ppo_prompts": prompts.prompts(chat["train"], material.asked["train"], 4000, rng=rng, topics=True),
        "evaluation_prompts": prompts.prompts(chat["heldout"], material.asked["test"], 256, rng=rng, known=known),
        "gate_prompts": prompts.gate_prompts(chat["gate"], known=known | evaluated, rng=rng),
        "vqa_test": question_rows(shuffled(material.asked["test"], rng, 1000), per_row=1, rng=rng),
    }


def gather(out: Path) -> Material:
    """Reads the packages; writes the pictures to `out/images`."""
    splits: dict[str, list[Conversation]] = {"train": [], "heldout": [], "gate": []}
    for conversation in talk.chitchat():
        splits[conversation.split].append(conversation)
    dialogues: dict[str, list[tuple[Turn, ...]]] = {"train": [], "heldout": []}
    for dialogue in talk.chatterbot():
        dialogues["train" if talk.fraction(f"dialogue {dialogue[0].text}") < 0.95 else "heldout"].append(dialogue)
    emojis = pictures.emojis(out)
    return Material(
        conversations=splits,
        dialogues=dialogues,
        asked={split: pictures.questions(out, split) for split in ("train", "test")},
        named={split: [emoji for emoji in emojis if emoji.split == split] for split in ("train", "test")},
    )


def compose(material: Material, seed: int, *, pretrained: bool = False) -> dict[str, Rows]:
    """The rows of all files by name, in their order; without those of pretraining for a model that had it."""
    known = prompts.texts_in(material.conversations["train"])
    known |= {turn.key for turns in material.dialogues["train"] for turn in turns}
    known |= {talk.key(conversation.topic) for conversation in material.conversations["train"]}
    # One generator for each group, so that a change of one does not draw the others anew.
    files = {} if pretrained else pretraining(material, np.random.default_rng([seed, 1]))
    files |= finetuning(material, np.random.default_rng([seed, 2]))
    files |= preferences(material, known, np.random.default_rng([seed, 3]))
    files |= prompting(material, known, np.random.default_rng([seed, 4]))
    return files


def write_packaged_data(out: Path, *, seed: int = 0, pretrained: bool = False) -> dict:
    """Writes all files below `out`, or keeps a finished folder of the same packages, seed and code.

    Args:
        out: Receives `<name>.jsonl`, `images/` and, last, `manifest.json`.
        seed: Of what is drawn and in which order; the splits do not depend on it.
        pretrained: The files of pretraining are not needed.

    Returns:
        The number of rows of each file, by its name without `.jsonl`, and of `images`.

    Raises:
        BadInput: A package is not installed.
    """
    modules = (talk, pictures, preference_pairs, prompts)
    wanted = recipe(seed, [Path(__file__), *(Path(str(module.__file__)) for module in modules)])
    if (counts := finished(out, wanted)) is not None and (pretrained or "pretrain" in counts):
        return counts
    (out / "images").mkdir(parents=True, exist_ok=True)
    (out / "manifest.json").unlink(missing_ok=True)
    material = gather(out)
    files = compose(material, seed, pretrained=pretrained)
    for name, rows in files.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        pictures.put(out / f"{name}.jsonl", text.encode())
    used = {q.picture for part in material.asked.values() for q in part}
    used |= {emoji.picture for part in material.named.values() for emoji in part}
    for stale in stored_pictures(out) - {out / picture for picture in used}:
        stale.unlink()
    manifest = described(out, wanted, {name: len(rows) for name, rows in files.items()})
    (out / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest["counts"]
