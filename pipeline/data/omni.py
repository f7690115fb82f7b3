"""Rows for a model that reads text, pictures, sounds and clips, and draws: packaged rows, and others made of them.

Sounds are made by formula (`sounds.py`), clips are sequences of packaged pictures, and drawings are packaged
pictures that the assistant shows instead of the user.
"""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from pipeline.data import pictures
from pipeline.data.conversations import Rows
from pipeline.data.packaged import shuffled, write_packaged_data
from pipeline.data.sounds import beeps, speech, wav

SHAPES = {"circle", "rectangle", "triangle"}
COLOURS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
COUNTS = {"train": {"beeps": 1500, "speech": 3000, "clips": 3000}, "test": {"beeps": 100, "speech": 100, "clips": 100}}
SEEDS = {"train": 11, "test": 12}


def described(asked: list[pictures.Question]) -> dict[str, str]:
    """What each picture shows, like "red circle", as far as questions and answers tell."""
    words: dict[str, set[str]] = defaultdict(set)
    for question in asked:
        if question.kind in ("color", "shape"):  # what is asked for is there
            words[question.picture] |= {question.answer, *question.question.rstrip("?").split()}
    shown = {path: (said & COLOURS, said & SHAPES) for path, said in sorted(words.items())}
    return {path: f"{min(colour)} {min(shape)}" for path, (colour, shape) in shown.items() if colour and shape}


def drawing_rows(shown: dict[str, str], named: list[pictures.Emoji]) -> Rows:
    """A picture to be drawn by its name in each row."""
    wanted = [(f"Draw a {name}.", path, "draw-shapes") for path, name in shown.items()]
    wanted += [(f"Draw: {emoji.name}.", emoji.picture, "draw-emoji") for emoji in named]
    return [
        {"messages": [_user(asked), _assistant([{"type": "image", "image": path}])], "source": source}
        for asked, path, source in wanted
    ]


def clip_rows(shown: dict[str, str], count: int, rng: np.random.Generator) -> Rows:
    """Two or three pictures, one a second, and a question about which comes when."""
    paths, rows = list(shown), []
    for _ in range(count):
        frames = [paths[i] for i in rng.choice(len(paths), rng.integers(2, 4), replace=False)]
        places = {"first": frames[0], "last": frames[-1]}
        place = ("first", "last")[rng.integers(2)]
        clip = {"type": "video", "video": {"frames": frames, "seconds": [float(i) for i in range(len(frames))]}}
        question = {"type": "text", "text": f"What is shown {place}?"}
        rows.append({"messages": [_user([clip, question]), _assistant(shown[places[place]])], "source": "clips"})
    return rows


def sound_rows(out: Path, split: str, kind: str, count: int, rng: np.random.Generator) -> Rows:
    """Sounds, written to `out/sounds`, and the question what is heard."""
    make, question = {"beeps": (beeps, "What do you hear?"), "speech": (speech, "What is said?")}[kind]
    (out / "sounds").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        sound, path = make(rng), f"sounds/{kind}-{split}-{number}.wav"
        pictures.put(out / path, wav(sound.wave))
        content = [{"type": "audio", "audio": path}, {"type": "text", "text": question}]
        rows.append({"messages": [_user(content), _assistant(sound.name)], "source": kind})
    return rows


def write_omni_data(out: Path) -> dict[str, int]:
    """Writes `omni.jsonl` and `omni_heldout.jsonl` beside the packaged files below `out`; returns rows by source."""
    write_packaged_data(out)
    emojis = pictures.emojis(out)
    counts: dict[str, int] = defaultdict(int)
    for split, base, name in (("train", "pretrain", "omni"), ("test", "pretrain_heldout", "omni_heldout")):
        rng = np.random.default_rng(SEEDS[split])
        shown = described(pictures.questions(out, split))
        drawn = drawing_rows(shown, [emoji for emoji in emojis if emoji.split == split])
        rows = [json.loads(line) for line in (out / f"{base}.jsonl").read_text(encoding="utf-8").split("\n") if line]
        rows += drawn if split == "train" else shuffled(drawn, rng, 100)
        rows += clip_rows(shown, COUNTS[split]["clips"], rng)
        for kind in ("beeps", "speech"):
            rows += sound_rows(out, split, kind, COUNTS[split][kind], rng)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in shuffled(rows, rng)]
        pictures.put(out / f"{name}.jsonl", "".join(lines).encode())
        for row in rows:
            counts[f"{name}: {row['source']}"] += 1
    return dict(counts)


def _user(content: object) -> dict:
    return {"role": "user", "content": content}


def _assistant(content: object) -> dict:
    return {"role": "assistant", "content": content}
