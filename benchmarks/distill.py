"""A student of a quarter of the shipped model's size: distilled from it, and trained on the same rows without it.

    python benchmarks/distill.py [--data DIR] [--work DIR] [--choose]

DIR holds the packaged files; without it they are written to runs/base/data. --choose tries learning rates for hard
labels, on a seed and on held-out rows that the comparison does not use. What was stopped goes on from where it was.
Figures go to benchmarks/results/distill.json and from there into docs/smaller_models.md.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402

CONVERSATIONS, STEPS, SEEDS = 1800, 120, (0, 1, 2)
CHOOSING_SEED = 100
# The learning rate is the best of RATES for hard labels (--choose). The distilled student takes the same one, and what
# else it takes was not chosen by any measurement.
RATES = (2e-3, 4e-3, 8e-3, 1.6e-2)
ARMS = {
    "hard labels": {"teacher_weight": 0.0, "learning_rate": 8e-3},
    "distilled": {"teacher_weight": 0.9, "learning_rate": 8e-3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain.jsonl and pretrain_heldout.jsonl")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "distill_benchmark", help="folder of the runs")
    parser.add_argument("--choose", action="store_true", help="choose the learning rate instead of comparing")
    given = parser.parse_args()
    bench = Bench(packaged_files(given.data), given.work)
    if given.choose:
        options = [ARMS["hard labels"] | {"learning_rate": rate} for rate in RATES]
        tried = [one | bench.run(one, CHOOSING_SEED, "choosing") for one in options]
        record({"choice": {"held_out": bench.sizes("choosing"), "tried": tried}})
        return
    figures = bench.describe()
    arms = {name: {**options, "seeds": []} for name, options in ARMS.items()}
    for seed in SEEDS:
        for name, arm in arms.items():
            arm["seeds"].append(bench.run(ARMS[name], seed, "reporting"))
        record(figures | {"arms": arms})


def record(figures: dict[str, Any]) -> None:
    """Writes figures beside those that are there, and the tables."""
    known = result.read("distill") if (result.RESULTS / "distill.json").exists() else {}
    figures = known | figures
    for name in ("command", "machine", "versions"):
        figures.pop(name, None)
    print(result.write("distill", figures))
    if figures.keys() >= {"arms", "choice"}:
        draw()


class Bench:
    """The shipped model as teacher, its rows, and students."""

    def __init__(self, data: Path, work: Path):
        from base_model import checkpoint
        from benchmarks.language_model import MODEL, is_text, read
        from training.dataset import read_rows

        self.work, self.teacher = work, checkpoint.load(MODEL)
        files = (data / f"{name}.jsonl" for name in ("pretrain", "pretrain_heldout"))
        rows, held_out = (list(filter(is_text, read_rows(file))) for file in files)
        chosen = np.random.default_rng(0).permutation(len(rows))[:CONVERSATIONS]
        self.text = read([rows[i] for i in chosen], self.teacher)
        halves = {"choosing": held_out[0::2], "reporting": held_out[1::2]}
        self.held_out = {name: read(half, self.teacher) for name, half in halves.items()}

    def sizes(self, part: str) -> dict[str, int]:
        """Rows, tokens and bytes of a half of the held-out rows."""
        return self.held_out[part].size()

    def describe(self) -> dict[str, Any]:
        """What the comparison is about."""
        from base_model.config import read_config
        from benchmarks.language_model import MODEL

        student = self.student(0)
        return {
            "steps": STEPS,
            "model": read_config(MODEL / "config.json")["content_digest"],
            "student": {"preset": "tiny-quarter", "parameters": parameters(student)},
            "teacher": {"parameters": parameters(self.teacher), **self.figures(self.teacher, "reporting")},
            "trained_on": self.text.size(),
            "held_out": self.sizes("reporting"),
        }

    def student(self, seed: int) -> Any:
        from pipeline.commands.distill import student_of

        return student_of("tiny-quarter", self.teacher, seed=seed)

    def run(self, options: dict[str, float], seed: int, part: str) -> dict[str, Any]:
        """Trains a student, if that was not done, and measures it on a half of the held-out rows."""
        from base_model.distill import distill
        from base_model.distill_config import DistillConfig
        from base_model.teacher_cache import TeacherCache, write_cache
        from training.files import write_whole

        name = "-".join(f"{name}_{value}" for name, value in options.items())
        folder = self.work / f"{name}-seed_{seed}-steps_{STEPS}"
        if (folder / "figures.json").exists():
            return json.loads((folder / "figures.json").read_text(encoding="utf-8"))
        config = DistillConfig(output_dir=str(folder), seed=seed, max_steps=STEPS, save_steps=40, **options)  # pyright: ignore[reportArgumentType]
        cache = self.work / f"teacher-{config.temperature}"
        write_cache(cache, self.teacher, self.text.examples, config)
        student = distill(config, self.student(seed), self.text.examples, TeacherCache(cache, self.text.examples))
        figures = {"seed": seed, **self.figures(student, part)}
        write_whole(folder / "figures.json", json.dumps(figures))
        return figures

    def figures(self, model: Any, part: str) -> dict[str, float]:
        """Held-out loss of the data, whatever was minimised."""
        from base_model.checkpoint import structure_of
        from base_model.likelihood import held_out

        text = self.held_out[part]
        scores = held_out(structure_of(model.config, model.tokenizer), model.params, text.examples)
        return {"nats_per_token": scores.loss, "bits_per_byte": float(scores.nll.sum() / np.log(2) / text.bytes.sum())}


def parameters(model: Any) -> int:
    import jax

    return sum(leaf.size for leaf in jax.tree.leaves(model.params))


def draw() -> None:
    """Puts the figures into docs/smaller_models.md."""
    found, page = result.read("distill"), ROOT / "docs" / "smaller_models.md"
    seeds = [f"seed {one['seed']}" for one in found["arms"]["distilled"]["seeds"]]
    header = ["held-out conversations", *seeds, "mean"]
    rows = []
    for metric, words in (("nats_per_token", "nats a token"), ("bits_per_byte", "bits a byte")):
        values = {name: np.array([one[metric] for one in arm["seeds"]]) for name, arm in found["arms"].items()}
        values["difference"] = values["distilled"] - values["hard labels"]
        for name, each in values.items():
            sign = "+" if name == "difference" else ""
            cells = [f"{value:{sign}.3f}".replace("-", "−") for value in (*each, each.mean())]
            rows.append([f"{words}: {name}", *cells])
        rows.append([f"{words}: the teacher", *[""] * len(seeds), f"{found['teacher'][metric]:.3f}"])
    result.fill(page, "distill", result.table(header, rows))
    header = ["learning rate, hard labels", "nats a token", "bits a byte"]
    rows = [
        [f"{one['learning_rate']:g}", f"{one['nats_per_token']:.3f}", f"{one['bits_per_byte']:.3f}"]
        for one in found["choice"]["tried"]
    ]
    result.fill(page, "distill_choice", result.table(header, rows))


if __name__ == "__main__":
    main()
