"""Which code a run ran with and its gates decided with."""

import functools
import hashlib
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path

from pipeline import __version__

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rlax", "numpy", "scipy", "scikit-learn", "sentencepiece",
    "tokenizers", "pillow", "alt-profanity-check",
)  # fmt: skip
EXTRAS = ("torch", "transformers", "detoxify", "nudenet")
OWN = ("training", "base_model", "sft", "reward", "safety", "ppo", "pipeline")


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on; of extras, those that are installed."""
    found = {name: metadata.version(name) for name in PACKAGES}
    for name in EXTRAS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def deciding_versions() -> dict[str, str]:
    """The same with this program's, and the digest of its code, from sampler to gate: a version may be edited."""
    return {"theodolite": __version__, "code": _own_digest(), **versions()}


def source_digest(roots: Sequence[Path]) -> str:
    """The digest of the code in some packages' folders, and of the data files that it reads there."""
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".json", ".jsonl")):
            name = f"{root.name}/{path.relative_to(root).as_posix()}"
            digest.update(f"{name}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


@functools.cache  # the code that runs is the one that was read first
def _own_digest() -> str:
    return source_digest([place for name in OWN for place in _places(name)])


def _places(name: str) -> list[Path]:
    """The folder of a package of this project, without importing it."""
    found = util.find_spec(name)
    return [Path(place) for place in (found.submodule_search_locations or [])] if found else []
