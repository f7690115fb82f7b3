"""What the shipped image tokenizer gives back of held-out pictures.

    python benchmarks/image_tokenizer.py [--data DIR]

DIR holds the files of configs/tiny_omni.yaml; without it they are written to runs/base/data. Figures go to
benchmarks/results/image_tokenizer.json and from there into docs/image_tokens.md.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402
from benchmarks.parts.shapes import named, recognised  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain_heldout.jsonl, omni_heldout.jsonl and images")
    given = parser.parse_args()
    data = packaged_files(given.data)
    print(result.write("image_tokenizer", {"tokenizer": tokenizer_figures(data), "shapes": shape_figures(data)}))
    draw()


def tokenizer_figures(data: Path) -> dict[str, Any]:
    """PSNR and usage of codes on held-out pictures."""
    from base_model.image_tokenizer_training import Pictures, figures
    from pipeline.commands.image_tokenizer import image_tokenizer
    from training.dataset import read_rows

    tokenizer = image_tokenizer("shipped")
    held_out = Pictures.read(read_rows(data / "pretrain_heldout.jsonl"), tokenizer.config.image_size)
    size = sum(leaf.size for leaf in _leaves(tokenizer.params))
    counts = {"all": len(held_out.sources)} | {name: held_out.sources.count(name) for name in set(held_out.sources)}
    found = {name: {"pictures": counts[name], **values} for name, values in figures(tokenizer, held_out).items()}
    return {"digest": tokenizer.digest, "parameters": size, "codes": tokenizer.config.codes, "held_out": found}


def shape_figures(data: Path) -> dict[str, Any]:
    """What the pixels of held-out shapes show, and those of the same given back."""
    from base_model.images import load_image, resize
    from pipeline.commands.image_tokenizer import image_tokenizer
    from training.dataset import read_rows

    tokenizer = image_tokenizer("shipped")
    shown = {
        row.values["messages"][1]["content"][0]["image"]: named(row.values["messages"][0]["content"])
        for row in read_rows(data / "omni_heldout.jsonl")
        if row.values["source"] == "draw-shapes"
    }
    pictures = [resize(load_image(path, data), tokenizer.config.image_size) for path in shown]
    again = [tokenizer.decode(tokenizer.encode(picture)) for picture in pictures]
    wanted = list(shown.values())
    return {"held out": recognised(pictures, wanted), "given back": recognised(again, wanted)}


def draw() -> None:
    """The tables of docs/image_tokens.md."""
    found, page = result.read("image_tokenizer"), ROOT / "docs" / "image_tokens.md"
    rows = [
        [name, f"{of['pictures']}", f"{of['psnr']:.1f} dB", f"{of['used']:.1%}", f"{of['perplexity']:.0f}"]
        for name, of in found["tokenizer"]["held_out"].items()
    ]
    header = ("held-out pictures", "number", "mean PSNR", "codes used", "perplexity of codes")
    result.fill(page, "tokenizer", result.table(header, rows))
    words = {"held out": "held-out pictures", "given back": "given back by the image tokenizer"}
    rows = [
        [words[name], f"{of['pictures']}", *(f"{of[what]:.0%}" for what in ("colour", "shape", "both"))]
        for name, of in found["shapes"].items()
    ]
    header = ("coloured shapes", "number", "right colour", "right shape", "both")
    result.fill(page, "shapes", result.table(header, rows))


def _leaves(tree: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


if __name__ == "__main__":
    main()
