"""What the shipped image tokenizer gives back of held-out pictures, and a small decoder that draws by name with it.

    python benchmarks/image_tokenizer.py [--data DIR]

DIR holds the packaged files; without it they are written to runs/base/data. Figures go to
benchmarks/results/image_tokenizer.json and from there into docs/image_tokens.md.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402

STEPS, COPIES = 150, 4
OF_A_SOURCE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain.jsonl, pretrain_heldout.jsonl and images")
    given = parser.parse_args()
    data = packaged_files(given.data)
    print(result.write("image_tokenizer", {"tokenizer": tokenizer_figures(data), "drawing": drawing_figures(data)}))
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


def drawing_figures(data: Path) -> dict[str, Any]:
    """A decoder of two layers, from scratch, on eight pictures: is what it draws nearest to the right one?"""
    from base_model.chat import messages_to_segments
    from base_model.checkpoint import LanguageModel, build, load, split
    from base_model.drawing import draw_pictures
    from base_model.drawing_tokenizer import DrawingTokenizer
    from base_model.images import load_image
    from base_model.interleave import interleave
    from base_model.presets import tiny
    from pipeline.commands.image_tokenizer import image_tokenizer
    from pipeline.config import shipped_model
    from pipeline.data.omni import chosen_drawings
    from sft.config import SFTConfig
    from sft.train import SFTTrainer
    from training.dataset import Row

    rows = [Row(row, f"row {number}", data) for number, row in enumerate(chosen_drawings(data, OF_A_SOURCE), 1)]
    pictures = [load_image(row.values["messages"][1]["content"][0]["image"], data) for row in rows]
    tokenizer = DrawingTokenizer(load(shipped_model()).tokenizer, image_tokenizer("shipped"))
    shape = tiny(tokenizer.vocab_size)
    layers = tuple(replace(layer, mlp_dim=256, window=None) for layer in shape.layers[:2])
    shape = replace(shape, embed_dim=128, layers=layers, vision=None)
    params = split(build(shape, tokenizer))[1]
    model = LanguageModel(config=shape, tokenizer=tokenizer, params=params, statistics={})
    with tempfile.TemporaryDirectory() as folder:
        options = SFTConfig(
            output_dir=folder, max_length=96, packing=False, per_device_train_batch_size=len(rows), max_steps=STEPS,
            learning_rate=5e-3,
        )  # fmt: skip
        trainer = SFTTrainer(model, options, rows, rows)
        start = time.perf_counter()
        learned = trainer.train()
        seconds = time.perf_counter() - start
    prompts = [
        interleave(
            messages_to_segments(row.values["messages"][:1], tokenizer, folder=data, ending="reply"), tokenizer, shape
        )
        for row in rows
    ]
    found = {}
    for name, options in (("greedy", {"temperature": 0.0}), ("sampled", {"temperature": 0.7, "copies": COPIES})):
        drawn = draw_pictures(trainer.model, prompts, **options)
        right = [nearest(one, pictures) == number for number, of_row in enumerate(drawn) for one in of_row]
        found[name] = {"pictures": len(right), "nearest_to_the_right_one": float(np.mean(right))}
    names = [row.values["messages"][0]["content"] for row in rows]
    figures = {"prompts": names, "steps": STEPS, "seconds": seconds, **learned, **found}
    return {"parameters": sum(leaf.size for leaf in _leaves(params)), **figures}


def nearest(drawn: np.ndarray, pictures: list[np.ndarray]) -> int:
    """The number of the picture with the least squared difference."""
    return int(np.argmin([np.square(drawn.astype(float) - picture).mean() for picture in pictures]))


def draw() -> None:
    """The tables of docs/image_tokens.md."""
    found, page = result.read("image_tokenizer"), ROOT / "docs" / "image_tokens.md"
    rows = [
        [name, f"{of['pictures']}", f"{of['psnr']:.1f} dB", f"{of['used']:.1%}", f"{of['perplexity']:.0f}"]
        for name, of in found["tokenizer"]["held_out"].items()
    ]
    header = ("held-out pictures", "number", "mean PSNR", "codes used", "perplexity of codes")
    result.fill(page, "tokenizer", result.table(header, rows))
    drawing = found["drawing"]
    rows = [
        [how, f"{drawing[how]['pictures']}", f"{drawing[how]['nearest_to_the_right_one']:.0%}"]
        for how in ("greedy", "sampled")
    ]
    header = ("eight pictures by name", "drawn", "nearest to the right one, of the eight")
    result.fill(page, "drawing", result.table(header, rows))


def _leaves(tree: Any) -> list[Any]:
    import jax

    return jax.tree.leaves(tree)


if __name__ == "__main__":
    main()
