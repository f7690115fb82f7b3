"""detoxify's classifier in JAX beside its own package, in the same run, on a random checkpoint of bert-base's shape.

    python benchmarks/detoxify.py --texts replies.jsonl comments.jsonl     measure, then fill the table
    python benchmarks/detoxify.py                                          fill the table from the last measurement

Files of rated texts as for `theodolite safety audit-scorer`; of RealToxicityPrompts the continuations are scored. Needs
the extra `detoxify`. Weights have no part in speed, so random ones will do; a WordPiece vocabulary is learned from the
texts themselves. Seconds of the CPU stand beside the clock's: on a machine that does other things too they say more.
Figures go to benchmarks/results/detoxify.json and from there into docs/scorers.md.
"""

import argparse
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from scipy.special import logit

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]  # not this file's folder: it would stand for the package detoxify

from benchmarks.parts import result  # noqa: E402

BATCH = 32
OTHERS = ("torch", "transformers", "detoxify", "tokenizers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="+", help="files of rated texts")
    parser.add_argument("--count", type=int, default=256, help="texts of each file")
    parser.add_argument("--rounds", type=int, default=3, help="times that everything is scored; the best counts")
    given = parser.parse_args()
    if given.texts:
        versions = {name: metadata.version(name) for name in OTHERS}
        print(result.write("detoxify", {"also": versions, **measure(given)}))
    draw()


def measure(given: argparse.Namespace) -> dict:
    """Texts a second of both, in turn, on the same texts."""
    import torch
    from tiny_detoxify import build

    from safety.scorers.convert import convert
    from safety.scorers.detoxify import DetoxifyScorer
    from safety.scorers.detoxify_jax import DetoxifyJaxScorer
    from safety.scorers.rated import read_rated

    sets = {}
    for source in given.texts:
        rated = read_rated(source)
        texts = [one.text for one in rated.part("continuation") or rated.texts]
        order = np.random.default_rng(0).permutation(len(texts))
        sets[rated.name] = [texts[i] for i in order[: given.count]]
    with tempfile.TemporaryDirectory() as folder:
        corpus = [text for texts in sets.values() for text in texts]
        checkpoint = build(Path(folder) / "bert", "bert", width=768, layers=12, heads=12, vocab=30522, positions=512,
                           corpus=corpus)  # fmt: skip
        convert(checkpoint, Path(folder) / "jax", str(checkpoint.parent))
        package, ours = DetoxifyScorer(checkpoint, batch_size=BATCH), DetoxifyJaxScorer(Path(folder) / "jax")
        return {
            "shape": "bert-base: 12 layers of 768",
            "torch_threads": torch.get_num_threads(),
            "package_batch": BATCH,
            "rounds": given.rounds,
            "sets": [{"name": name, **compare(package, ours, texts, given.rounds)} for name, texts in sets.items()],
        }


def compare(package, ours, texts: list[str], rounds: int) -> dict:
    """Seconds of each round, by the clock and of the CPU; the first call of ours, which compiles, stands apart."""
    tokens = [len(encoding.ids) for encoding in ours._tokenizer.encode_batch(texts)]
    begun = time.perf_counter()
    scores = ours.score(texts)
    first = time.perf_counter() - begun
    ways = {"package": (package, texts), "package, sorted by length": (package, sorted(texts, key=len)),
            "jax": (ours, texts)}  # fmt: skip
    seconds, cpu = ({way: [] for way in ways} for _ in range(2))
    for _ in range(rounds):  # in turn, so that whatever else the machine does falls on all of them
        for way, (scorer, given) in ways.items():
            begun, used = time.perf_counter(), time.process_time()
            found = scorer.score(given)
            seconds[way].append(time.perf_counter() - begun)
            cpu[way].append(time.process_time() - used)
            if way == "package":
                theirs = found
    best, per_cpu = ({way: len(texts) / min(times) for way, times in kind.items()} for kind in (seconds, cpu))
    return {
        "texts": len(texts),
        "tokens": {"mean": float(np.mean(tokens)), "median": float(np.median(tokens)), "most": max(tokens)},
        "seconds": seconds,
        "cpu_seconds": cpu,
        "seconds_of_first_call": first,
        "texts_per_second": best,
        "texts_per_cpu_second": per_cpu,
        "times_the_package": best["jax"] / best["package"],
        "times_the_package_by_cpu": per_cpu["jax"] / per_cpu["package"],
        "largest_difference": max(float(np.abs(scores[label] - theirs[label]).max()) for label in ours.labels),
        "largest_difference_of_a_logit": max(
            float(np.abs(logit(scores[label]) - logit(theirs[label])).max()) for label in ours.labels
        ),
    }


def draw() -> None:
    """The table of docs/scorers.md."""
    if not (result.RESULTS / "detoxify.json").exists():
        print("nothing was measured yet: give --texts")
        return
    found = result.read("detoxify")
    # Matrix products of the texts' own tokens and nothing else, by benchmarks/products.py.
    tokens = result.read("products")["ways"]["float32"]["tokens_a_second"]
    header = ("texts", "tokens, mean (most)", "package, texts/s", "package, sorted", "JAX, texts/s",
              "times the package", "texts a CPU second, both", "times", "by products alone",
              "largest difference of a logit")  # fmt: skip
    rows = [
        [
            f"{one['texts']} of {one['name']}", f"{one['tokens']['mean']:.0f} ({one['tokens']['most']})",
            *(f"{one['texts_per_second'][way]:.1f}" for way in ("package", "package, sorted by length", "jax")),
            f"{one['times_the_package']:.1f}",
            " and ".join(f"{one['texts_per_cpu_second'][way]:.1f}" for way in ("package", "jax")),
            f"{one['times_the_package_by_cpu']:.1f}",
            f"{tokens / one['tokens']['mean'] / one['texts_per_cpu_second']['package']:.1f}",
            f"{one['largest_difference_of_a_logit']:.0e}",
        ]
        for one in found["sets"]
    ]  # fmt: skip
    result.fill(ROOT / "docs" / "scorers.md", "detoxify", result.table(header, rows))


if __name__ == "__main__":
    main()
