"""How far the decoder is from what transformers computed, for every fixture: the differences of `base verify`.

    python benchmarks/decoder.py

Figures go to benchmarks/results/decoder.json and from there into docs/published_models.md.
"""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402

FIXTURES = ROOT / "tests" / "fixtures" / "decoder"
# Lines of the table, and how the quantities that stand in each begin.
QUANTITIES = {
    "embeddings and hidden states": ("hidden/",),
    "logits": ("logits",),
    "logits through the cache": ("prefill_logits", "step_logits"),
    "greedy tokens that differ": ("new_tokens",),
    "picture encoder": ("siglip_last_hidden", "vision_last_hidden"),
    "soft tokens of pictures": ("image_hidden_states", "image_soft_tokens", "soft_tokens"),
    "sound encoder": ("audio_subsample", "audio_last_hidden", "audio_mask"),
    "soft tokens of sounds": ("audio_hidden_states",),
    "loss": ("loss",),
    "norms of gradients": ("gradnorm/",),
}


def main() -> None:
    print(result.write("decoder", {"folders": {folder.name: measure(folder) for folder in folders()}}))
    document = ROOT / "docs" / "published_models.md"
    for place, text in tables(result.read("decoder")).items():
        result.fill(document, place, text)


def folders() -> list[Path]:
    """The fixtures that another implementation made."""
    return sorted(path.parent for path in FIXTURES.glob("*/golden.npz"))


def measure(folder: Path) -> dict[str, Any]:
    """Differences of a folder by case and quantity, and what could not be compared."""
    from base_model.published.golden import differences

    found = [(f"{case}/{quantity}", largest) for case, quantity, largest in differences(folder)]
    return {
        "differences": {name: largest for name, largest in found if largest is not None},
        "not_compared": [name for name, largest in found if largest is None],
    }


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The largest difference in each kind of quantity over all cases of a folder."""
    folders = found["folders"]
    rows = [
        [label, *(_largest(label, prefixes, of["differences"]) for of in folders.values())]
        for label, prefixes in QUANTITIES.items()
    ]
    return {"decoder": result.table(["largest difference", *(f"`{name}`" for name in folders)], rows)}


def _largest(label: str, prefixes: tuple[str, ...], differences: dict[str, float]) -> str:
    found = [value for name, value in differences.items() if name.split("/", 1)[1].startswith(prefixes)]
    if not found:
        return "-"
    return f"{max(found):.0f}" if "tokens that differ" in label else f"{max(found):.1e}"


if __name__ == "__main__":
    main()
