"""Conversations of the installed packages: read, cleaned, scored for lexical toxicity, and split once.

`chitchat-dataset` holds human conversations of two people who were shown a topic ("What if pigs could fly?") and who
rated the conversation afterwards; `chatterbot-corpus` holds hand-written questions and answers.
"""

import hashlib
import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

MAX_TURNS = 12  # even, so that every piece of a long conversation starts on a user turn
CONTEXT_TURNS = 3  # odd, so that a context starts and ends on a user turn

TAGS = re.compile(r"</?(?:em|strong|b|i|br)\s*/?>", re.IGNORECASE)
CONTACT = re.compile(r"\S+@\S+\.\w{2,}|(?<!\d)\d{3}[-. )]{1,2}\d{3}[-. ]?\d{4}(?!\d)|https?://\S*|www\.\S+")
# What stands in every match of CONTACT, found in a tenth of the time.
CONTACT_HINT = re.compile(r"[@\d]|http|www")

Message = dict[str, object]
Rows = list[dict]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one person says before the other replies.

    Attributes:
        text: The messages that were sent in a row, as one text.
        score: Lexical toxicity of `text`, in [0, 1].
        toxicity: The highest of `score` and the scores of its single messages; low means that nothing in it is toxic.
    """

    text: str
    score: float
    toxicity: float

    @cached_property
    def key(self) -> str:
        """The key of `text`; files of several kinds ask for it."""
        return key(self.text)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Alternating turns; `messages` are the texts as they were sent, `rating` is the mean of three marks of 1-10."""

    id: str
    topic: str
    rating: float | None
    turns: tuple[Turn, ...]
    messages: tuple[Turn, ...]

    @property
    def split(self) -> str:
        """`train` (84 %), `heldout` (6 %) or `gate` (10 %), by the hash of the id alone."""
        place = fraction(f"conversation {self.id}")
        return "train" if place < 0.84 else "heldout" if place < 0.90 else "gate"


def fraction(name: str) -> float:
    """A number in [0, 1) that depends on `name` only, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48


def clean(text: str) -> str:
    """Plain text on one line: entities and tags resolved, addresses and telephone numbers removed."""
    text = html.unescape(text)
    if "<" in text:
        text = TAGS.sub("", text)
    if CONTACT_HINT.search(text):
        text = CONTACT.sub(" ", text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def join(messages: Sequence[str]) -> str:
    """One turn out of messages sent in a row, which mostly lack a full stop: a capital letter starts a sentence."""
    joined = messages[0]
    for message in messages[1:]:
        joined += (". " if joined[-1].isalnum() and message[0].isupper() else " ") + message
    return joined


def key(*texts: str) -> str:
    """Equal for contexts that differ in case, spacing and punctuation only."""
    return "\n".join(" ".join(re.findall(r"\w+", text.casefold())) or text.strip() for text in texts)


def alternating(texts: Sequence[str]) -> list[Message]:
    """Messages of the roles user, assistant, user, ..."""
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def context(conversation: Conversation, reply: int) -> list[Turn]:
    """The one or three turns before turn `reply`; whoever replies is taken as the assistant."""
    size = CONTEXT_TURNS if reply >= CONTEXT_TURNS else 1
    return list(conversation.turns[reply - size : reply])


def pieces(conversation: Conversation) -> list[tuple[Turn, ...]]:
    """The turns in pieces of about `MAX_TURNS`; a single last turn joins the piece before it."""
    turns = conversation.turns
    starts = [i for i in range(0, len(turns), MAX_TURNS) if i == 0 or len(turns) - i > 1]
    return [turns[start:end] for start, end in zip(starts, [*starts[1:], len(turns)], strict=True)]


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


def dialogue_rows(dialogues: list[tuple[Turn, ...]]) -> Rows:
    """Rows of chatterbot-corpus."""
    return [{"messages": alternating([turn.text for turn in turns]), "source": "chatterbot"} for turns in dialogues]


def toxicity_scores(texts: Sequence[str]) -> dict[str, float]:
    """Lexical toxicity in [0, 1] of each distinct text, all in one batch (alt-profanity-check)."""
    from profanity_check import predict_prob

    distinct = sorted(set(texts))
    return dict(zip(distinct, (float(score) for score in predict_prob(distinct)), strict=True)) if distinct else {}


def scored(text: str, scores: dict[str, float], *messages: str) -> Turn:
    """The turn `text` that was sent as `messages`."""
    return Turn(text=text, score=scores[text], toxicity=max(scores[part] for part in (text, *messages)))


def chitchat() -> list[Conversation]:
    """All conversations of `chitchat-dataset`, sorted by id; consecutive messages of one person are one turn."""
    # Not by the package's own reader, which leaves the file open.
    stored = json.loads((files("chitchat_dataset") / "dataset.json").read_text(encoding="utf-8"))
    spoken: dict[str, list[list[str]]] = {}
    for name, record in stored.items():
        turns: list[list[str]] = []
        sender = None
        for message in (message for group in record["messages"] for message in group):
            text = clean(message["text"])
            if not text:
                continue
            if message["sender"] != sender:
                turns.append([])
            sender = message["sender"]
            turns[-1].append(text)
        if turns:
            spoken[name] = turns

    scores = toxicity_scores(
        [text for turns in spoken.values() for turn in turns for text in (*turn, join(turn))],
    )
    # Most turns are one message, and many are said often: each has one Turn, whose key is made once.
    alone = {text: scored(text, scores) for text in scores}
    conversations = []
    for name in sorted(spoken):
        marks = [int(mark) for mark in stored[name].get("ratings", {}).values()]
        joined = [(join(turn), turn) for turn in spoken[name]]
        conversations.append(
            Conversation(
                id=name,
                topic=clean(stored[name].get("prompt") or ""),
                rating=sum(marks) / len(marks) if marks else None,
                turns=tuple(alone[t] if len(turn) == 1 else scored(t, scores, *turn) for t, turn in joined),
                messages=tuple(alone[m] for turn in spoken[name] for m in turn),
            )
        )
    return conversations


def chatterbot() -> list[tuple[Turn, ...]]:
    """The English dialogues of `chatterbot-corpus`, without duplicates and without program listings.

    In `emotion` and `computers` an entry is a question and its alternative answers, elsewhere it is a dialogue.
    """
    import yaml

    dialogues: dict[tuple[str, ...], None] = {}
    folder = files("chatterbot_corpus") / "data" / "english"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".yml"):
            continue
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            if not isinstance(entry, list) or len(entry) < 2 or any("```" in str(text) for text in entry):
                continue  # one entry of the package is a bare string
            texts = [clean(str(text)) for text in entry]
            alternatives = file.name in ("emotion.yml", "computers.yml")
            for dialogue in [(texts[0], text) for text in texts[1:]] if alternatives else [tuple(texts)]:
                if all(dialogue):
                    dialogues[dialogue] = None
    scores = toxicity_scores([text for dialogue in dialogues for text in dialogue])
    return [tuple(scored(t, scores) for t in dialogue[:MAX_TURNS]) for dialogue in dialogues]
