"""The same prompt answered by every stage: which prompts to show, and which words to keep covered."""

import math
from typing import NamedTuple

from pipeline.marks import number
from pipeline.page.provenance import redraw
from pipeline.page.record import StageRecord

COVERED_FROM = 0.5
_LONGEST = 800


class Reply(NamedTuple):
    """A sampled reply: its text, its score, whether it stays covered, and which of the prompt's samples it is."""

    text: str
    score: float
    covered: bool
    place: int

    @property
    def shown_score(self) -> str:
        """The score as printed."""
        return f"{self.score:.2f}" if math.isfinite(self.score) else "–"


class Answers(NamedTuple):
    """What one stage answered: its worst reply, its first one (a typical one), and how many of all were toxic.

    `again` is the command that draws them all once more.
    """

    stage: str
    title: str
    worst: Reply
    first: Reply
    toxic: int
    count: int
    again: str


class Exhibit(NamedTuple):
    """A prompt with every stage's answers; `change` is the worst score of the last stage less that of the first.

    `line` is the number of its line in the last stage's samples.jsonl.
    """

    id: str
    line: int
    text: str
    covered: bool
    stratum: str
    source: str
    answers: tuple[Answers, ...]
    change: float

    @property
    def shown_change(self) -> str:
        """The change in words."""
        if len(self.answers) < 2:
            return ""
        first, last = self.answers[0], self.answers[-1]
        if abs(self.change) < 0.005:
            return f"Highest score the same from {first.title} to {last.title}."
        way = "up" if self.change > 0 else "down"
        return f"Highest score {way} by {number(abs(self.change), 2)} from {first.title} to {last.title}."


class Gallery(NamedTuple):
    """The prompts on the page, and how many there were to choose from."""

    worst: tuple[Exhibit, ...]
    changed: tuple[Exhibit, ...]
    total: int


def gallery(stages: list[StageRecord], run: str, *, most: int = 40) -> Gallery:
    """Chooses up to `most` prompts: half by the last stage's worst reply, then those whose worst score moved most.

    Args:
        stages: those with samples.
        run: its name, for the commands.
        most: how many prompts to show.
    """
    rows = {stage.name: {row["id"]: (n, row) for n, row in enumerate(stage.samples, start=1)} for stage in stages}
    last = rows[stages[-1].name] if stages else {}
    exhibits = [_exhibit(prompt, stages, rows, run) for prompt in last]
    by_worst = sorted(exhibits, key=lambda e: (-e.answers[-1].worst.score, e.id))
    worst = by_worst[: most // 2]
    chosen = {exhibit.id for exhibit in worst}
    moved = [e for e in exhibits if e.id not in chosen and len(e.answers) > 1 and abs(e.change) >= 0.005]
    changed = sorted(moved, key=lambda e: (-abs(e.change), e.id))[: most - len(worst)]
    return Gallery(tuple(worst), tuple(changed), len(exhibits))


def _exhibit(
    prompt: str, stages: list[StageRecord], rows: dict[str, dict[str, tuple[int, dict]]], run: str
) -> Exhibit:
    answers = tuple(
        _answers(stage, *rows[stage.name][prompt], redraw(run, stage.name))
        for stage in stages
        if prompt in rows[stage.name]
    )
    line, row = rows[stages[-1].name][prompt]
    return Exhibit(
        id=str(prompt),
        line=line,
        text=cut(row["text"]),
        # Nobody scored the prompts, but those chosen for being hostile read no better than the replies.
        covered=row["stratum"] == "toxic",
        stratum=str(row["stratum"]),
        source=str(row["source"]),
        answers=answers,
        change=answers[-1].worst.score - answers[0].worst.score,
    )


def _answers(stage: StageRecord, line: int, row: dict, command: str) -> Answers:
    gate = stage.gate or {}
    scores = [float(score) for score in row["scores"][gate.get("label", "toxicity")]]
    threshold = float((gate.get("policy") or {}).get("threshold", COVERED_FROM))
    cover = min(COVERED_FROM, threshold)

    def reply(place: int) -> Reply:
        # Not "score >= cover": a score that is no number must not uncover its text.
        return Reply(cut(row["samples"][place]), scores[place], not scores[place] < cover, place + 1)

    worst = max(range(len(scores)), key=lambda i: (scores[i], -i))
    toxic = sum(score >= threshold for score in scores)
    return Answers(stage.name, stage.title, reply(worst), reply(0), toxic, len(scores), f"{command} {line}")


def cut(text: str) -> str:
    """A text that one reply cannot flood the page with."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST} more characters)"
