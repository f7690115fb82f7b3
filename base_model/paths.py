"""Paths in rows: a medium lies below the folder of its data file, or it is not read."""

from pathlib import Path

from training.errors import BadInput


def inside(folder: Path, name: str, kind: str) -> Path:
    """Follows a row's relative path.

    Args:
        folder: where it starts; neither `..` nor a link may lead out of it.
        name: whatever the row says.
        kind: "image", "audio" or "video", for the message.

    Raises:
        BadInput: when it cannot be followed or leads out of `folder`.
    """
    if "\0" in name:
        raise BadInput(f"the {kind} path {name!r} has a NUL in it, which no file name can")
    try:
        path = (folder / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, half a character, a circle of links
        raise BadInput(f"the {kind} path {name!a:.80} cannot be followed: {error!a:.120}") from error
    if not path.is_relative_to(folder.resolve()):
        raise BadInput(f"the {kind} path {name} leads out of {folder}; keep media beside the data file")
    return path
