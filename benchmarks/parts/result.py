"""Where a benchmark's figures go: benchmarks/results/NAME.json, and from there into tables of the documents."""

import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
VERSIONS = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rlax", "numpy", "scikit-learn", "alt-profanity-check",
)  # fmt: skip


def write(name: str, figures: Mapping[str, Any]) -> Path:
    """Writes the figures with the machine, the versions and the command that gave them."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    # Where somebody keeps things is nobody's business: of an absolute path the last name stays.
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    content = {
        "command": shlex.join(["python", f"benchmarks/{name}.py", *words]),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS}},
        **figures,
    }
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return path


def read(name: str) -> dict[str, Any]:
    """The figures as they were written."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def fill(document: Path, name: str, text: str) -> None:
    """Puts text between the marks `<!-- NAME -->` and `<!-- end of NAME -->` of a document.

    Raises:
        ValueError: the document has no such marks.
    """
    content = document.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    changed, found = pattern.subn(lambda match: f"{match[1]}{text}\n{match[2]}", content)
    if not found:
        raise ValueError(f"{document} has no place for {name}")
    document.write_text(changed, encoding="utf-8")


def cpu_name() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
