"""Gate prompts: what one is, how a set of them is pinned, split and drawn from. `safety.prompt_set` loads them.

A gate prompt is posed as the user's turn. Toxic and non-toxic prompts divide a set; challenging ones are a part of the
toxic ones (Gehman et al. 2020: prompts that made every model of theirs toxic).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety.demands import Half
from safety.prompt_media import Content, Turn, from_json, key_of, to_json, turn_of
from training.digest import json_digest
from training.errors import BadInput

STRATA = ("toxic", "non-toxic")
GROUPS = (*STRATA, "challenging", "all")  # what metrics are given for


@dataclass(frozen=True, kw_only=True)
class GatePrompt:
    """One prompt of a gate.

    Attributes:
        id: unique within a set.
        text: what the user says.
        stratum: "toxic" or "non-toxic"; for RealToxicityPrompts, toxic iff the prompt's own toxicity is at least 0.5.
            A policy's further sets are a stratum each, by their name.
        source: where it is from, for the report.
        challenging: whether it is known to make models toxic.
        content: the whole turn, if a picture, a sound or a clip comes with the text; else nothing.
    """

    id: str
    text: str
    stratum: str
    source: str
    challenging: bool = False
    content: Content = ()

    def __post_init__(self):
        """Check that nothing is blank."""
        for name in ("id", "text", "stratum", "source"):
            require_text(name, getattr(self, name))

    @property
    def turn(self) -> Turn:
        """What the user says.

        Raises:
            BadInput: what comes with the text cannot be read, or was changed.
        """
        return turn_of(self.content) if self.content else self.text

    @property
    def key(self) -> str:
        """What makes two prompts the same: the text, and the bytes of what comes with it."""
        return key_of(self.content) if self.content else self.text

    def to_dict(self) -> dict[str, Any]:
        """Return the prompt as a row of samples.jsonl; `challenging` and `content` stand there only if it has them."""
        row: dict[str, Any] = {"id": self.id, "text": self.text, "stratum": self.stratum, "source": self.source}
        row |= {"challenging": True} if self.challenging else {}
        return row | ({"content": to_json(self.content)} if self.content else {})

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], folder: Path) -> "GatePrompt":
        """Read what `to_dict` returned.

        Args:
            row: other keys of a line of samples.jsonl may be in it.
            folder: where the files of `content` are kept.

        Raises:
            BadInput, KeyError, TypeError, ValueError: it is no such row.
        """
        fields = {name: row[name] for name in row.keys() & {"id", "text", "stratum", "source", "challenging"}}
        return cls(**fields, content=from_json(row.get("content", ()), folder))

    def belongs_to(self, group: str) -> bool:
        """Whether a metric of this group is about this prompt; "all" is about both strata and no further set."""
        if group == "all":
            return self.stratum in STRATA
        return self.stratum == group or (group == "challenging" and self.challenging)


def require_text(name: str, value: Any) -> str:
    """Return a text that is one.

    Raises:
        BadInput: no text, a blank one, or half of a surrogate pair in it.
    """
    if not isinstance(value, str) or not value.strip():
        raise BadInput(f"a gate prompt needs a non-empty string as {name!r}, got {value!r}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"a gate prompt's {name!r} spells half of a surrogate pair, which is no text: {value!a:.60}")
    return value


def prompts_digest(prompts: Iterable[GatePrompt]) -> str:
    """Return the digest of a set of prompts, in order, every field included."""
    return json_digest([prompt.to_dict() for prompt in prompts])


def overlap(prompts: Iterable[GatePrompt], keys: Iterable[str]) -> tuple[GatePrompt, ...]:
    """Return the gate prompts whose key is among `keys`: what was trained on must not be what is measured on."""
    seen = {_plain(key) for key in keys}
    return tuple(prompt for prompt in prompts if _plain(prompt.key) in seen)


def half_of(prompts: Iterable[GatePrompt], half: Half, rotation: int) -> tuple[GatePrompt, ...]:
    """Return the open or the sealed half of a set, or all of it.

    Which half a prompt is in follows from its key and the rotation alone, so copies of it, in this set or another, are
    in the same half. The next rotation deals the halves anew: half of its sealed prompts were open before.
    """
    if half == "all":
        return tuple(prompts)
    sealed = half == "sealed"
    return tuple(prompt for prompt in prompts if (_hash(f"half {rotation}:{_plain(prompt.key)}") < "8") == sealed)


def select(prompts: Sequence[GatePrompt], per_stratum: int | None, seed: int) -> tuple[GatePrompt, ...]:
    """Draw the same prompts for every stage of a run.

    Prompts are ranked by a hash of seed and id, so that the draw depends on neither order nor platform. A prompt that
    occurs twice is used once: two copies of a prompt would count as two independent clusters and narrow the intervals.

    Args:
        prompts: the set to draw from.
        per_stratum: how many of each stratum; None takes all.
        seed: the selection's seed.

    Returns:
        `per_stratum` toxic prompts, then as many non-toxic ones.

    Raises:
        BadInput: a stratum is empty or has fewer distinct texts than asked for.
    """
    return tuple(prompt for stratum in STRATA for prompt in draw(prompts, stratum, per_stratum, seed))


def draw(prompts: Iterable[GatePrompt], stratum: str, count: int | None, seed: int) -> list[GatePrompt]:
    """Draw from one stratum; see `select`."""
    distinct: dict[str, GatePrompt] = {}
    for prompt in sorted((p for p in prompts if p.stratum == stratum), key=lambda p: (_hash(f"{seed}:{p.id}"), p.id)):
        distinct.setdefault(prompt.key, prompt)
    wanted = len(distinct) if count is None else count
    if len(distinct) < max(wanted, 1):
        raise BadInput(
            f"wanted {max(wanted, 1)} {stratum} gate prompts, but the set has {len(distinct)} with distinct texts:"
            " give more prompts or lower prompts_per_stratum"
        )
    return list(distinct.values())[:wanted]


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
