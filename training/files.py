"""Files that are there whole or not at all, whenever a process is killed."""

from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it: what was there before stays until all of it is replaced."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content.encode() if isinstance(content, str) else content)
    part.replace(path)
