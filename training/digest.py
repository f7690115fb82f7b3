"""Digests: what exactly a verdict is about.

A checkpoint is a folder, so its digest is taken over a manifest: the sorted list of (relative path, size, SHA-256 of
the bytes) of every file below it. Nothing is ignored, hidden files included, and anything that is not a regular file is
refused: a symbolic link would let the bytes change without the digest noticing. Folders themselves carry no bytes and
are not listed.
"""

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from training.errors import BadInput

_BLOCK = 1 << 20

_PREFIX = "sha256:"


class ManifestEntry(NamedTuple):
    """One file of a folder: its path relative to the folder (with "/"), its size in bytes, its SHA-256 in hex."""

    path: str
    size: int
    sha256: str


def bytes_digest(content: bytes) -> str:
    """Return `"sha256:<hex>"` of some bytes."""
    return _PREFIX + hashlib.sha256(content).hexdigest()


def json_digest(value: Mapping | Sequence) -> str:
    """Return the digest of a JSON value in its canonical form: sorted keys, no spaces, no NaN, UTF-8."""
    return bytes_digest(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def file_digest(path: str | os.PathLike) -> str:
    """Return `"sha256:<hex>"` of a regular file's bytes.

    Raises:
        BadInput: the path is missing, a symbolic link, or not a regular file.
    """
    return _PREFIX + _hash_file(Path(path)).sha256


def manifest(path: str | os.PathLike) -> list[ManifestEntry]:
    """List every file below a folder, sorted by relative path, each with its size and SHA-256.

    Args:
        path: the folder. It may itself be reached through a link; nothing below it may be one.

    Raises:
        BadInput: not a folder, no file below it, a symbolic link or a non-regular file (socket, device, pipe) below it.
    """
    root = Path(path)
    if not root.is_dir():
        raise BadInput(f"wanted a folder to take a digest of, got {root}, which is not one")
    entries = []
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in folders:
            if (Path(folder) / name).is_symlink():
                raise BadInput(f"{Path(folder) / name} is a symbolic link; copy its content instead")
        for name in files:
            file = Path(folder) / name
            entries.append(_hash_file(file)._replace(path=file.relative_to(root).as_posix()))
    if not entries:
        raise BadInput(f"{root} has no files: nothing to take a digest of")
    return sorted(entries)


def folder_digest(path: str | os.PathLike) -> str:
    """Return `"sha256:<hex>"` over a folder's manifest. Any changed, added, removed or renamed file changes it.

    Raises:
        BadInput: see `manifest`.
    """
    return manifest_digest(manifest(path))


def manifest_digest(entries: Sequence[ManifestEntry]) -> str:
    """Return a folder's digest, given its manifest."""
    return json_digest([list(entry) for entry in entries])


def _hash_file(path: Path) -> ManifestEntry:
    """Hash one file. O_NOFOLLOW and fstat look at the very file that is read, so it can't be swapped in between."""
    try:
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind):  # before opening: opening a pipe would wait for its other end
            what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
            raise BadInput(f"{path} is {what}; a digest needs regular files: copy its content instead")
        # A pipe that comes into its place meanwhile must not be waited for either.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise BadInput(f"cannot read {path} to take its digest: {error.strerror}") from error
    hasher, size = hashlib.sha256(), 0
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BadInput(f"{path} changed into something that is not a regular file while its digest was taken")
        while block := file.read(_BLOCK):
            hasher.update(block)
            size += len(block)
    return ManifestEntry(path.name, size, hasher.hexdigest())
