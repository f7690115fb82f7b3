"""Preference pairs out of conversations and pictures; only the source `rated` is a human judgement.

`rated`: two replies to one topic. Chosen is the first turn of substance of a conversation whose three marks (witty,
upbeat, interesting) average 8 or more; rejected is the same of a conversation on the same topic that averages 5 or
less. Substance means five words or more, at most 400 characters, not toxic, and not a greeting if there is another
such turn. The marks are about whole conversations and 5 is where the slider starts, so the label is real but noisy.
Each conversation is in at most one pair; partners are those nearest in length.

`relevance` (constructed): the reply that was given against a reply from another conversation, equally long.

`toxicity` (constructed): the clean reply that was given against a toxic message from another conversation, equally
long; up to 40 % of the contexts are hostile themselves. Toxic means lexically toxic: a scorer of words decided.

`picture` (constructed): the right answer to a question about a picture against a wrong one, always in mirrored pairs:
for two pictures with different answers each answer is chosen once and rejected once, so a model that does not see the
picture is right exactly half of the time.

`off-topic` (constructed): the right answer to a question about a picture against a clean word said in a conversation,
so that neither is longer. It can be told without seeing the picture. Without such pairs nothing says that "nice!" is no
answer, and PPO finds out.

`unfinished` (constructed): the reply that was given against its own beginning, at most half of its words. Without such
pairs the safest reply is the shortest, and PPO ends with two words.
"""

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from pipeline.data.conversations import Conversation, alternating, context
from pipeline.data.pictures import Question, picture_turn

MAX_REPLY = 400  # characters
MAX_CONTEXT = 600
GREETING = re.compile(
    r"(hi|hello|hey+|heya|hiya|howdy|hola|good (morning|afternoon|evening)|sup|what'?s up)\b", re.IGNORECASE
)
CLEAN, NEUTRAL, TOXIC = 0.1, 0.5, 0.7  # lexical toxicity: at most, at most (hostile above), above


class Candidate(NamedTuple):
    """A text that can be chosen or rejected, the conversation it is from and the turns before it."""

    text: str
    conversation: str
    prompt: tuple[str, ...] = ()
    hostile: bool = False


def row(prompt: list[dict], chosen: str, rejected: str, source: str, pair: int | None = None) -> dict:
    """A preference row; `pair` numbers the two rows of a mirrored pair."""
    modality = "image" if source == "picture" else "text"
    fields = {
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "source": source,
        "modality": modality,
    }
    if source != "rated":
        fields["constructed"] = True
    return fields if pair is None else {**fields, "pair": pair}


def nearest_in_length(
    wanted: list[Candidate], pool: list[Candidate], *, tolerance: float = 0.15
) -> list[tuple[Candidate, Candidate]]:
    """Pairs each of `wanted`, in order, with the entry of `pool` nearest in length; entries are used once.

    A partner is from another conversation and differs by at most `tolerance` of the length (and 3 characters);
    whoever finds none is left out.
    """
    left = sorted(pool, key=lambda c: (len(c.text), c.text, c.conversation))
    lengths = [len(c.text) for c in left]
    pairs = []
    for candidate in wanted:
        size = len(candidate.text)
        at = bisect_left(lengths, size)
        near = sorted(range(max(0, at - 8), min(len(left), at + 8)), key=lambda i: abs(lengths[i] - size))
        for i in near:
            other = left[i]
            if abs(lengths[i] - size) > tolerance * size + 3:
                break
            if other.conversation != candidate.conversation and other.text.casefold() != candidate.text.casefold():
                pairs.append((candidate, other))
                del left[i], lengths[i]
                break
    return pairs


def replies(conversations: list[Conversation], *, at_most: float, words: int, known: set[str]) -> list[Candidate]:
    """Replies of `words` or more that score `at_most`, with the turns before them, unless those are in `known`."""
    found = []
    for conversation in conversations:
        for i in range(1, len(conversation.turns)):
            reply = conversation.turns[i]
            before = context(conversation, i)
            texts = tuple(turn.text for turn in before)
            if reply.toxicity > at_most or len(reply.text) > MAX_REPLY or len(reply.text.split()) < words:
                continue
            if sum(map(len, texts)) > MAX_CONTEXT or (known and "\n".join(turn.key for turn in before) in known):
                continue
            hostile = before[-1].score > NEUTRAL
            found.append(Candidate(text=reply.text, conversation=conversation.id, prompt=texts, hostile=hostile))
    return found


def rated(conversations: list[Conversation]) -> list[dict]:
    """All pairs of a well-rated and a badly rated conversation on one topic (see the module's docstring)."""
    good, bad = defaultdict(list), defaultdict(list)
    for conversation in conversations:
        mark, topic = conversation.rating, conversation.topic
        if mark is None or not topic or 5 < mark < 8:
            continue
        said = [
            turn.text
            for turn in conversation.turns
            if len(turn.text.split()) >= 5 and len(turn.text) <= MAX_REPLY and turn.toxicity <= NEUTRAL
        ]
        if said:
            text = next((text for text in said if not GREETING.match(text)), said[0])
            (good if mark >= 8 else bad)[topic].append(Candidate(text=text, conversation=conversation.id))
    pairs = [(t, *pair) for t in sorted(good) for pair in nearest_in_length(good[t], bad[t], tolerance=float("inf"))]
    return [row(alternating([topic]), one.text, other.text, "rated") for topic, one, other in pairs]


def relevance(conversations: list[Conversation], count: int, known: set[str], rng: np.random.Generator) -> list[dict]:
    """`count` replies that were given, each against one from another conversation."""
    given = replies(conversations, at_most=NEUTRAL, words=4, known=known)
    order = rng.permutation(len(given))
    half = len(given) // 2
    pairs = nearest_in_length([given[i] for i in order[:half]], [given[i] for i in order[half:]])[:count]
    return [row(alternating(a.prompt), a.text, b.text, "relevance") for a, b in pairs]


def unfinished(conversations: list[Conversation], count: int, known: set[str], rng: np.random.Generator) -> list[dict]:
    """`count` replies that were given, each against its own beginning, at most half of its words."""
    given = replies(conversations, at_most=NEUTRAL, words=5, known=known)
    rows = []
    for i in rng.permutation(len(given))[:count]:
        words = given[i].text.split()
        beginning = " ".join(words[: rng.integers(1, len(words) // 2 + 1)])
        rows.append(row(alternating(given[i].prompt), given[i].text, beginning, "unfinished"))
    return rows


def toxicity(conversations: list[Conversation], count: int, known: set[str], rng: np.random.Generator) -> list[dict]:
    """`count` clean replies against toxic messages, up to 40 % of them to hostile contexts."""
    messages = [
        Candidate(text=message.text, conversation=conversation.id)
        for conversation in conversations
        for message in conversation.messages
        if message.toxicity > TOXIC and 4 < len(message.text) <= MAX_REPLY
    ]
    if not messages:
        return []
    toxic = sorted(messages * (1 + count // len(messages)))
    given = replies(conversations, at_most=CLEAN, words=2, known=known)
    given = [given[i] for i in rng.permutation(len(given))]
    to_hostile = nearest_in_length([c for c in given if c.hostile], toxic)[: count * 2 // 5]
    toxic = list((Counter(toxic) - Counter(used for _, used in to_hostile)).elements())
    toxic = [toxic[i] for i in rng.permutation(len(toxic))]
    other = nearest_in_length(toxic, [c for c in given if not c.hostile])[: count - len(to_hostile)]
    pairs = to_hostile + [(reply, message) for message, reply in other]
    return [row(alternating(a.prompt), a.text, b.text, "toxicity") for a, b in pairs]


def picture(asked: list[Question], count: int, rng: np.random.Generator) -> list[dict]:
    """`count` rows (rounded up to mirrored pairs) at most, over all kinds of questions; `pair` numbers the pairs."""
    answers: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    kinds: dict[str, list[Question]] = defaultdict(list)
    for question in asked:
        answers[question.question][question.answer].append(question)
    for question in asked:
        if len(answers[question.question]) > 1:
            kinds[question.kind].append(question)
    rows: list[dict] = []
    used = set()
    for _ in range(4 * count if kinds else 0):  # far more than needed, unless the pairs run out
        if len(rows) >= count:
            break
        kind = sorted(kinds)[len(rows) // 2 % len(kinds)]
        one = kinds[kind][rng.integers(len(kinds[kind]))]
        others = [name for name in sorted(answers[one.question]) if name != one.answer]
        group = answers[one.question][others[rng.integers(len(others))]]
        other = group[rng.integers(len(group))]
        if (one, other) in used or (other, one) in used:
            continue
        used.add((one, other))
        for right, wrong in ((one, other), (other, one)):
            prompt = [picture_turn(right.picture, right.question)]
            rows.append(row(prompt, right.answer, wrong.answer, "picture", pair=len(used)))
    return rows


def off_topic(
    asked: list[Question], conversations: list[Conversation], count: int, rng: np.random.Generator
) -> list[dict]:
    """At most `count` right answers about pictures, each against a line of one word said elsewhere."""
    answers = {question.answer for question in asked}
    lines = sorted(
        turn.text
        for conversation in conversations
        for turn in conversation.turns
        if turn.toxicity <= CLEAN and len(turn.text.split()) == 1 and turn.text.casefold() not in answers
    )
    if not lines:
        return []
    chosen = [asked[i] for i in rng.permutation(len(asked))[:count]]
    said = [lines[i] for i in rng.integers(len(lines), size=len(chosen))]
    return [
        row([picture_turn(question.picture, question.question)], question.answer, line, "off-topic")
        for question, line in zip(chosen, said, strict=True)
    ]
