"""Files that are there whole or not at all, whenever a process is killed, and JSON that is really JSON."""

import json
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it: what was there before stays until all of it is replaced."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)


def strict_json(text: str | bytes) -> Any:
    """Reads JSON that is really JSON: NaN and infinity, which Python reads as numbers, are refused.

    Raises:
        ValueError: it is none.
    """
    return json.loads(text, parse_constant=_no_number)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number that JSON has")
