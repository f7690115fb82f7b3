"""The chat template of a published folder, compared with the turns that this program writes.

Turns are written in code (base_model/chat.py), so that no user's text becomes a control token; a template is rendered
once, for one harmless conversation, to see that it says the same.
"""

from pathlib import Path
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from base_model.chat import messages_to_segments
from base_model.config import read_config
from base_model.gemma_tokenizer import GemmaTokenizer
from base_model.interleave import Text
from training.errors import BadInput

TALK = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "how are you"},
    {"role": "user", "content": "fine"},
]


def require_same_turns(folder: Path, tokenizer: GemmaTokenizer) -> None:
    """Compares the folder's template, if it has one, with our turns.

    What a template writes behind the opening of the reply, as those of models that think do, is left to the model.

    Raises:
        BadInput: when it writes other turns, or is none.
    """
    found = _template(folder)
    if found is None:
        return
    path, source = found
    segments = messages_to_segments(TALK, tokenizer, folder=folder, ending="reply")
    ours = tokenizer.with_controls(number for part in segments if isinstance(part, Text) for number in part.ids)
    try:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda _: ""}
        theirs = environment.from_string(source).render(
            messages=TALK, add_generation_prompt=True, bos_token="<bos>", eos_token="<eos>", tools=None
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise BadInput(f"{path} cannot be rendered: {error}") from error
    if not theirs.startswith(ours):
        place = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), len(theirs))
        raise BadInput(
            f"{path} writes other turns than this program: {theirs[max(0, place - 20):][:60]!r} where "
            f"{ours[max(0, place - 20):][:60]!r} is written here; remove the template to import the model with these"
        )


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


def _refuse(reason: str) -> NoReturn:
    raise TemplateError(reason)
