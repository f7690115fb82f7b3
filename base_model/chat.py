"""Messages to segments: the chat template, and what of it a model is trained on."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from base_model.segments import Drawn, Medium, Segment, Text, Words
from base_model.tokenizer import BOS, END_OF_TURN, EOS, MODEL, ROLES, SYSTEM, USER, Tokenizer
from training.errors import BadInput

# Part of a model's identity: a reward model must have been trained on the template that the policy speaks.
TEMPLATE = f"<bos> ({{{SYSTEM} {USER} {MODEL}}} content {END_OF_TURN})* <eos>"


def fingerprint(tokenizer: Tokenizer) -> str:
    """Digest of tokenizer and template together; models that score or copy one another must share it."""
    return "sha256:" + hashlib.sha256((tokenizer.digest + TEMPLATE).encode()).hexdigest()


def messages_to_segments(
    messages: Any,
    tokenizer: Tokenizer,
    *,
    folder: Path,
    loss_on: str = "assistant",
    ending: str = "document",
) -> list[Segment]:
    """Applies the template.

    Args:
        messages: a row's list of `{"role", "content"}`, content a string or a list of typed parts; checked here.
        tokenizer: for the text and the control tokens.
        folder: where relative media paths start.
        loss_on: "assistant" (replies and their end of turn), "last" (the last reply only) or "all".
        ending: "document" closes the text, "turn" stops after the last turn (what a reward model scores), "reply"
            opens an assistant turn (what a policy continues).

    Raises:
        BadInput: for an unknown role or kind of part, or empty messages.
    """
    if loss_on not in ("assistant", "last", "all") or ending not in ("document", "turn", "reply"):
        raise BadInput(f"loss_on={loss_on!r} with ending={ending!r} is nothing that the chat template knows")
    if not messages:
        raise BadInput("a row needs at least one message, this one has none")
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise BadInput('messages are a list of objects {"role": ..., "content": ...}, and this row has something else')
    segments: list[Segment] = [Text([BOS], False)]
    replies = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise BadInput(f"a message's role is one of {', '.join(ROLES)}, not {role!r}")
        learn = loss_on == "all" or (role == "assistant" and (loss_on == "assistant" or index == replies[-1]))
        segments += _opening(role, tokenizer, loss_on == "all")
        draws = role == "assistant" and tokenizer.image_codes is not None
        for part in parts(message.get("content")):
            segments.append(_part(part, tokenizer, folder, learn, draws, loss_on == "all"))
        segments.append(Text([tokenizer.end_of_turn], learn))
        if tokenizer.after_turn:
            segments.append(Text(tokenizer.after_turn, loss_on == "all"))
    if ending == "reply":
        segments += _opening("assistant", tokenizer, False)
    elif ending == "document":
        segments.append(Text([EOS], loss_on == "all"))
    return segments


def _opening(role: str, tokenizer: Tokenizer, learn: bool) -> list[Segment]:
    token, name = tokenizer.opening(role)
    return [Text([token], learn), Words(name, learn)]


def parts(content: Any) -> list[Mapping[str, Any]]:
    """A message's content as typed parts."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if isinstance(content, Sequence) and all(isinstance(part, Mapping) for part in content):
        return list(content)
    raise BadInput(f"a message's content is a string or a list of parts, not {type(content).__name__}")


def parts_of(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All that is said and shown in a row's `messages`, part by part.

    Raises:
        BadInput: when they are no messages.
    """
    messages = values.get("messages")
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise BadInput('a row needs `messages`, a list of objects {"role": ..., "content": ...}')
    return [part for message in messages for part in parts(message.get("content"))]


def _part(
    part: Mapping[str, Any], tokenizer: Tokenizer, folder: Path, learn: bool, draws: bool, learn_all: bool
) -> Segment:
    kind = part.get("type")
    if kind == "text" and isinstance(part.get("text"), str):
        return Words(part["text"].strip() if tokenizer.joins_texts else part["text"], learn)
    if draws and kind == "image" and part.get(kind) is not None:
        return Drawn(part[kind], folder, learn)
    if kind in ("image", "audio", "video") and part.get(kind) is not None:
        return Medium(kind, part[kind], folder, learn_all)
    given = repr(dict(part))[:80]
    raise BadInput(f"a content part is text, image, audio or video with its value under that key, not {given}")


def reply_messages(prompt: Any, reply: Any) -> list[Mapping[str, Any]]:
    """A prompt and its reply, each a string or messages, as one conversation.

    Raises:
        BadInput: for anything else, or a reply that is not the assistant's.
    """
    for name, value in (("prompt", prompt), ("reply", reply)):
        listed = isinstance(value, Sequence) and all(isinstance(part, Mapping) for part in value)
        if not isinstance(value, str) and not listed:
            raise BadInput(f"a {name} is a string or a list of messages, not {value!r:.60}")
    prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    reply = [{"role": "assistant", "content": reply}] if isinstance(reply, str) else list(reply)
    if not reply or reply[-1].get("role") != "assistant":
        raise BadInput("a reply ends with a message of the assistant, and this one does not")
    return [*prompt, *reply]
