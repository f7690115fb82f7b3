"""The chat template of a published folder, compared with the turns that this program writes.

Turns are written in code (base_model/chat.py), so that no user's text becomes a control token; a template is rendered
for harmless conversations, to see that it says the same, and what it writes around media.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from base_model.chat import messages_to_segments
from base_model.config import read_config
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.segments import encoded
from base_model.tokenizer import BOS, EOS, ROLES, Tokenizer
from training.errors import BadInput

TALK = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "how are you"},
    {"role": "user", "content": "fine"},
]

# What is written of the turns of a tokenizer.
_SOURCE = """\
{{- bos_token -}}
{%- set turns = TURNS -%}
{%- set media = MEDIA -%}
{%- for message in messages -%}
    {%- if message.role not in turns -%}
        {{- raise_exception("a message has another role than this model knows") -}}
    {%- endif -%}
    {{- turns[message.role] -}}
    {%- if message.content is string -%}
        {{- message.content | trim -}}
    {%- else -%}
        {%- for part in message.content -%}
            {%- if part.type == "text" -%}
                {{- part.text | trim -}}
            {%- elif part.type in media -%}
                {{- media[part.type] -}}
            {%- else -%}
                {{- raise_exception("a content part has another type than this model knows") -}}
            {%- endif -%}
        {%- endfor -%}
    {%- endif -%}
    {{- END -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- turns["assistant"] -}}
{%- endif -%}
"""


def surroundings(folder: Path, tokenizer: GemmaTokenizer, kinds: Sequence[str]) -> dict[str, str]:
    """What the folder's template writes on either side of media; nothing where it does not know a kind.

    Args:
        folder: of the model.
        tokenizer: for what stands in the place of media.
        kinds: of media that the model reads.

    Raises:
        BadInput: when the template writes something else before a medium than behind it, or is none.
    """
    found = _template(folder)
    if found is None:
        return {}
    around = {}
    for kind in kinds:
        content = [{"type": "text", "text": "left"}, {"type": kind}, {"type": "text", "text": "right"}]
        said = _rendered(*found, tokenizer, [{"role": "user", "content": content}])
        place = re.escape(tokenizer.placeholders[kind])
        if (match := re.search(f"left(.*){place}(.*)right", said, re.DOTALL)) is None:
            continue
        before, behind = match.groups()
        if before != behind:
            raise BadInput(
                f"{found[0]} writes {before!r:.40} before a medium of kind {kind}, and {behind!r:.40} behind it; only "
                "a template that writes the same on both sides is supported; remove it to import the model without"
            )
        around[kind] = before
    return around


def require_same_turns(folder: Path, tokenizer: Tokenizer) -> None:
    """Compares the folder's template, if it has one, with our turns.

    What a template writes behind the opening of the reply, as those of models that think do, is left to the model.

    Raises:
        BadInput: when it writes other turns, or is none.
    """
    found = _template(folder)
    if found is None:
        return
    segments = messages_to_segments(TALK, tokenizer, folder=folder, ending="reply")
    ours = tokenizer.with_controls(number for part in encoded(segments, tokenizer) for number in part.ids)
    theirs = _rendered(*found, tokenizer, TALK)
    if not theirs.startswith(ours):
        place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), len(theirs))
        raise BadInput(
            f"{found[0]} writes other turns than this program: {theirs[max(0, place - 20):][:60]!r} where "
            f"{ours[max(0, place - 20):][:60]!r} is written here; remove the template to import the model with these"
        )


def template_of(tokenizer: Tokenizer) -> str:
    """A chat template that writes the turns of this program: of texts, and of media where a processor reads them."""
    turns = {}
    for role in ROLES:
        try:
            token, name = tokenizer.opening(role)
        except BadInput:  # Gemma 3 has no turn of the system
            continue
        turns[role] = tokenizer.with_controls([token]) + name
    media = {}
    if isinstance(tokenizer, GemmaTokenizer):
        around = tokenizer.surroundings
        media = {kind: f"{around.get(kind, '')}{place}{around.get(kind, '')}"
                 for kind, place in tokenizer.placeholders.items()}  # fmt: skip
    end = tokenizer.with_controls([tokenizer.end_of_turn, *tokenizer.after_turn])
    values = {"TURNS": turns, "MEDIA": media, "END": end}
    source = _SOURCE if tokenizer.joins_texts else _SOURCE.replace(" | trim", "")
    for name, value in values.items():
        source = source.replace(name, json.dumps(value))
    return source


def _template(folder: Path) -> tuple[Path, str] | None:
    """The template's file and text: a file of its own, or a field of an older one."""
    try:
        if (path := folder / "chat_template.jinja").exists():
            return path, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        source: Any = read_config(path).get("chat_template") if (path := folder / name).exists() else None
        if isinstance(source, list):  # several with names
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            source = named.get("default")
        if isinstance(source, str):
            return path, source
    return None


def _rendered(path: Path, source: str, tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]]) -> str:
    bos, eos = (tokenizer.with_controls([number]) for number in (BOS, EOS))
    try:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: ""}
        return environment.from_string(source).render(
            messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=eos, tools=None
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise BadInput(f"{path} cannot be rendered: {error}") from error


def _refuse(reason: str) -> NoReturn:
    raise TemplateError(reason)
