"""Which code a run ran with and its gates decided with."""

import hashlib
from importlib import metadata
from pathlib import Path

import safety
from pipeline import __version__

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rlax", "numpy", "sentencepiece", "alt-profanity-check",
)  # fmt: skip


def versions() -> dict[str, str]:
    """The versions of the packages that figures depend on."""
    return {name: metadata.version(name) for name in PACKAGES}


def deciding_versions() -> dict[str, str]:
    """The same with this program's, and the digest of the code that decides a gate: a version may be edited."""
    digest, root = hashlib.sha256(), Path(str(safety.__file__)).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return {"theodolite": __version__, "safety": f"sha256:{digest.hexdigest()}", **versions()}
