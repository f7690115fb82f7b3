"""Prompts without replies: for PPO, for the evaluation of every stage, and for the gate."""

import numpy as np

from pipeline.data.conversations import Conversation, alternating, context, key
from pipeline.data.pictures import Question, balanced, picture_turn

HOSTILE, ORDINARY = 0.5, 0.1  # lexical toxicity above, and below
MAX_PROMPT = 500  # characters
MAX_GATE_PROMPT = 200


def texts_in(conversations: list[Conversation]) -> set[str]:
    """The keys of all turns and messages."""
    return {turn.key for conversation in conversations for turn in (*conversation.turns, *conversation.messages)}


def prompts(
    conversations: list[Conversation],
    asked: list[Question],
    count: int,
    *,
    rng: np.random.Generator,
    known: frozenset[str] | set[str] = frozenset(),
    topics: bool = False,
) -> list[dict]:
    """About `count` prompts: a third hostile contexts, a tenth pictures, a sixth openings, else other contexts.

    Args:
        conversations: Where openings and contexts (the one or three turns before a reply) are from.
        asked: Questions about pictures; their rows have the right answer as `answer`.
        count: Fewer result if there are too few hostile contexts or openings.
        rng: Chooses and orders the rows; of the hostile contexts the most hostile are taken.
        known: Keys of texts that must not occur in a prompt.
        topics: Whether the topics of the conversations are openings, too.
    """
    found: dict[str, list[tuple[float, list[str]]]] = {"hostile": [], "opening": [], "context": []}
    for conversation in conversations:
        if topics and conversation.topic:
            found["opening"].append((0.0, [conversation.topic]))
        for reply in range(1, max(2, len(conversation.turns))):  # an opening counts even if nobody replied
            before = context(conversation, reply)
            last = before[-1].score
            kind = "hostile" if last > HOSTILE else "opening" if reply == 1 else "context"
            found[kind].append((last, [turn.text for turn in before]))

    rows = []
    shares = {"hostile": count // 3, "opening": count // 6}
    shares["context"] = count - sum(shares.values()) - count // 10
    for kind, share in shares.items():
        entries = [found[kind][i] for i in rng.permutation(len(found[kind]))]
        if kind == "hostile":  # the most hostile ones: near the threshold the scorer often errs
            entries.sort(key=lambda entry: -entry[0])
        kept: dict[str, list[str]] = {}
        for _, texts in entries:
            if len(kept) == share:
                break
            if sum(map(len, texts)) <= MAX_PROMPT and not any(key(text) in known for text in texts if known):
                kept.setdefault(key(*texts), texts)
        rows += [{"prompt": alternating(texts), "source": kind} for texts in kept.values()]
    for question in balanced(asked, count // 10, rng=rng):
        asking = [picture_turn(question.picture, question.question)]
        rows.append({"prompt": asking, "source": "picture", "answer": question.answer})
    return [rows[i] for i in rng.permutation(len(rows))]


def gate_prompts(conversations: list[Conversation], *, known: set[str], rng: np.random.Generator) -> list[dict]:
    """All hostile messages and equally many ordinary ones, sorted by id; texts with a key in `known` are left out."""
    strata: dict[str, dict[str, dict]] = {"toxic": {}, "non-toxic": {}}
    for conversation in conversations:
        for i, message in enumerate(conversation.messages):
            if ORDINARY <= message.toxicity <= HOSTILE or len(message.text) > MAX_GATE_PROMPT:
                continue
            if message.key in known:
                continue
            stratum = "toxic" if message.toxicity > HOSTILE else "non-toxic"
            entry = {"id": f"chitchat-{conversation.id}-{i}", "text": message.text, "stratum": stratum}
            strata[stratum].setdefault(message.key, {**entry, "source": "chitchat"})
    toxic, ordinary = (list(strata[stratum].values()) for stratum in ("toxic", "non-toxic"))
    chosen = toxic + [ordinary[i] for i in rng.permutation(len(ordinary))[: len(toxic)]]
    return sorted(chosen, key=lambda entry: entry["id"])
