"""What pictures cost the text: the shipped model's recipe on conversations alone, with as many of their tokens.

    python benchmarks/text_only.py [--data DIR] [--work DIR]   train (half an hour), measure, then fill the table
    python benchmarks/text_only.py --draw                      fill the table from the last measurement

DIR holds the files that the shipped model was pretrained on; without it they are written to runs/base/data. A run that
was stopped goes on where it was. Figures go to benchmarks/results/text_only.json and from there into docs/results.md.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.language_model import LENGTH, MODEL, RESAMPLES, is_text, read  # noqa: E402
from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402

CONFIG = ROOT / "configs" / "tiny_base.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain.jsonl and pretrain_heldout.jsonl")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "text_only", help="the run's folder")
    parser.add_argument("--draw", action="store_true", help="only fill the table")
    given = parser.parse_args()
    if not given.draw:
        print(result.write("text_only", measure(packaged_files(given.data), given.work)))
    draw()


def measure(data: Path, work: Path) -> dict[str, Any]:
    """Trains on the conversations, and compares both models on held-out ones."""
    from base_model import checkpoint
    from base_model.checkpoint import structure_of
    from base_model.likelihood import held_out
    from base_model.pretrain import pretrain
    from pipeline.commands.base import BasePretrain
    from pipeline.options import parse
    from training.dataset import read_rows

    shipped = checkpoint.load(MODEL)
    rows = read_rows(data / "pretrain.jsonl")
    tokens = {True: 0, False: 0}
    for row in rows:
        text = read([row], shipped)
        tokens[is_text(row)] += sum(map(len, text.examples))
    share = tokens[True] / sum(tokens.values())
    options = parse(BasePretrain, ["--config", str(CONFIG)]).pretrain
    steps = round(share * options.max_steps)
    work.mkdir(parents=True, exist_ok=True)
    talk = [row.values for row in rows if is_text(row)]
    chosen = work / "conversations.jsonl"
    chosen.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in talk), encoding="utf-8")
    kept = [row for row in read_rows(data / "pretrain_heldout.jsonl") if row.values["source"] == "chitchat"]
    heard = work / "heldout.jsonl"
    heard.write_text("".join(json.dumps(row.values, ensure_ascii=False) + "\n" for row in kept), encoding="utf-8")
    alone = pretrain(
        replace(options, output_dir=str(work), max_steps=steps), replace(shipped.config, vision=None),
        shipped.tokenizer, data=chosen, held_out_data=heard,
    )  # fmt: skip
    text = read(kept, shipped)
    bits = {
        name: np.bincount(
            text.row, held_out(structure_of(model.config, model.tokenizer), model.params, text.examples).nll
        ) / np.log(2)
        for name, model in (("shipped", shipped), ("text only", alone))
    }  # fmt: skip
    more = bits["shipped"] - bits["text only"]
    drawn = np.random.default_rng(0).integers(0, len(more), (RESAMPLES, len(more)))
    low, high = np.quantile(more[drawn].sum(1) / text.bytes[drawn].sum(1), [0.025, 0.975])
    return {
        "conversations": len(kept), "share_of_text": round(share, 4), "length": LENGTH,
        "steps": {"shipped": options.max_steps, "text only": steps},
        "bits_per_byte": {name: float(of.sum() / text.bytes.sum()) for name, of in bits.items()},
        "difference": {"estimate": float(more.sum() / text.bytes.sum()), "low": float(low), "high": float(high)},
    }  # fmt: skip


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The table by the name of its place."""
    words = {"shipped": "shipped model", "text only": "the same, on conversations alone"}
    rows = [[words[name], f"{found['steps'][name]:,}", f"{bits:.3f}"] for name, bits in found["bits_per_byte"].items()]
    apart = "{estimate:+.3f} [{low:+.3f}, {high:+.3f}]".format(**found["difference"]).replace("-", "−")
    rows.append(["what pictures cost", "", apart])
    header = [f"{found['conversations']} held-out conversations", "steps", "bits a byte"]
    return {"text_only": result.table(header, rows)}


def draw() -> None:
    """Puts the figures into docs/results.md."""
    for name, text in tables(result.read("text_only")).items():
        result.fill(ROOT / "docs" / "results.md", name, text)


if __name__ == "__main__":
    main()
