"""What comes with a gate prompt's text: pictures, sounds and clips, known by their bytes wherever they lie."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from base_model.paths import inside
from training.digest import bytes_digest, file_digest
from training.errors import BadInput
from training.files import write_whole

FOLDER = "media"  # of a gate, where those of its prompts are kept
WORDS = {"image": "picture", "audio": "sound", "video": "clip"}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

Turn = str | list[dict[str, Any]]
"""What a user says: a text, or the typed parts of a message."""


@dataclass(frozen=True)
class Attachment:
    """A picture, a sound or a clip.

    Attributes:
        kind: "image", "audio" or "video".
        digest: of its bytes: what it is known by.
        path: where they are.
    """

    kind: str
    digest: str
    path: Path = field(compare=False)

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            BadInput: they cannot be read, or are others by now.
        """
        word = WORDS[self.kind]
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise BadInput(f"the {word} {self.path.name} of a gate prompt cannot be read: {error.strerror}") from error
        if bytes_digest(content) != self.digest:
            raise BadInput(f"the {word} {self.path.name} of a gate prompt was changed: it is not {self.digest}")
        return content


Content = tuple[str | Attachment, ...]
"""A turn, part by part."""


def content_of(value: Sequence[Any], folder: Path | None) -> Content:
    """A turn of a row: a list of content parts, or of one message of the user.

    Args:
        value: the list, as the row has it.
        folder: where paths start; None for rows that no file lies beside.

    Raises:
        BadInput: another kind of part, more than one message, or a file that is missing or outside of the folder.
    """
    if any(isinstance(part, Mapping) and "role" in part for part in value):
        message = value[0]
        if len(value) != 1 or message.get("role") != "user":
            raise BadInput(f"a gate prompt is one turn of the user, and this row has {len(value)} messages")
        value = message.get("content")
        if isinstance(value, str):
            return (value,)
    if not isinstance(value, list):
        raise BadInput(f"the content of a gate prompt is a text or a list of parts, not {value!r:.60}")
    return tuple(_part(part, folder) for part in value)


def _part(part: Any, folder: Path | None) -> str | Attachment:
    kind = part.get("type") if isinstance(part, Mapping) else None
    given = part.get(kind) if isinstance(kind, str) else None
    if kind == "text" and isinstance(given, str):
        return given
    if not isinstance(kind, str) or kind not in WORDS or not isinstance(given, str):
        raise BadInput(f"a part of a gate prompt is text, or image, audio or video by its path, not {part!r:.80}")
    if folder is None:
        raise BadInput(f"the {WORDS[kind]} {given} would be a file beside the prompts: give them as .jsonl or .parquet")
    path = inside(folder, given, kind)
    if not os.path.isfile(path):
        raise BadInput(f"the {WORDS[kind]} {given} does not exist")
    return Attachment(kind, file_digest(path), path)


def text_of(content: Content) -> str:
    """The texts of a turn, one after the other."""
    return " ".join(part for part in content if isinstance(part, str))


def key_of(content: Content) -> str:
    """What makes two turns the same: their texts, and the bytes of what comes with them."""
    return "|".join([text_of(content), *(part.digest for part in attachments(content))])


def attachments(content: Content) -> tuple[Attachment, ...]:
    """What of a turn is no text."""
    return tuple(part for part in content if isinstance(part, Attachment))


def turn_of(content: Content) -> list[dict[str, Any]]:
    """A turn with the bytes of what comes with it; raises as `Attachment.read` does."""
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind, part.kind: part.read()}
        for part in content
    ]


def to_json(content: Content) -> list[dict[str, str]]:
    """A turn with digests in place of files."""
    return [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind, part.kind: part.digest}
        for part in content
    ]


def from_json(parts: Sequence[Mapping[str, str]], folder: Path) -> Content:
    """Reads what `to_json` returned; the files are those that `keep` put into the folder.

    Raises:
        BadInput: what should be a digest is none; it names a file, which may lie nowhere else.
    """
    given = ((part["type"], part[part["type"]]) for part in parts)
    return tuple(value if kind == "text" else Attachment(kind, value, folder / _name(value)) for kind, value in given)


def keep(content: Content, folder: Path) -> None:
    """Copies what comes with a turn into a folder, named by its digest; raises as `Attachment.read` does."""
    for part in attachments(content):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _name(part.digest), part.read())


def _name(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise BadInput(f"what comes with a gate prompt is known by its digest, sha256:..., not {digest!r:.80}")
    return digest.removeprefix("sha256:")
