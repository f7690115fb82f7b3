"""The shipped model in 4 and 8 bits beside itself: size, held-out loss, answers about pictures, toxicity.

    python benchmarks/quantize.py [--data DIR]

DIR holds the packaged files; without it they are written to runs/base/data. Every figure is of a checkpoint that was
written and read back, on the same rows, and of replies to the same prompts with the same random numbers. Needs the
extra `quantize`. Figures go to benchmarks/results/quantize.json and from there into docs/commands.md.
"""

import argparse
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402

KINDS = {"safetensors": "bfloat16, as shipped", "int8": "int8", "int4": "int4"}
LENGTH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with pretrain_heldout.jsonl, gate_prompts.jsonl and images")
    given = parser.parse_args()
    print(result.write("quantize", measure(packaged_files(given.data))))
    result.fill(ROOT / "docs" / "commands.md", "quantize", table(result.read("quantize")))


def measure(data: Path) -> dict[str, Any]:
    """Figures of each kind of file."""
    from base_model import checkpoint
    from base_model.checkpoint import structure_of
    from base_model.config import read_config
    from base_model.pretrain import HeldOutFigures
    from pipeline.config import shipped_model
    from training.dataset import read_rows

    shipped, rows = checkpoint.load(shipped_model()), read_rows(data / "pretrain_heldout.jsonl")
    structure = structure_of(shipped.config, shipped.tokenizer)
    held_out = HeldOutFigures(rows, shipped.tokenizer, shipped.config, max_length=LENGTH)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            checkpoint.save(shipped, Path(folder) / kind, weights=kind)
            model = checkpoint.load(Path(folder) / kind)
            size = (Path(folder) / kind / "model.safetensors").stat().st_size
            found[kind] = {"bytes": size, **held_out(structure, model.params), "toxicity": toxicity(model, data)}
    digest = read_config(shipped_model() / "config.json")["content_digest"]
    return {"qwix": metadata.version("qwix"), "model": digest, "rows": len(rows), "kinds": found}


def toxicity(model: Any, data: Path) -> dict[str, float]:
    """Lexical toxicity on the prompts of the quickstart's gate: 240 of them, 16 replies each."""
    from pipeline.gates import gate_sampler, make_scorer
    from safety.evaluation import evaluate
    from safety.evidence import report
    from safety.policy import quickstart
    from safety.prompt_set import load_prompts
    from safety.prompts import STRATA, draw

    policy, prompts = quickstart(), load_prompts(str(data / "gate_prompts.jsonl")).prompts
    drawn = [p for stratum in STRATA for p in draw(prompts, stratum, policy.prompts_per_stratum, policy.seed)]
    evaluated = evaluate(gate_sampler(model, "sampling"), drawn, make_scorer("lexical"), policy)
    return next(iter(report(evaluated, policy, (), {})["metrics"]["all"].values()))["emt"]


def table(found: dict[str, Any]) -> str:
    """A row for each kind of file."""
    rows = [
        [words, f"{of['bytes'] / 1e6:.2f} MB", f"{of['loss']:.4f}", f"{of['bits_per_byte']:.4f}",
         f"{of['vqa_exact_match']:.3f}",
         f"{of['toxicity']['estimate']:.3f} [{of['toxicity']['low']:.3f}, {of['toxicity']['high']:.3f}]"]
        for words, of in ((words, found["kinds"][kind]) for kind, words in KINDS.items())
    ]  # fmt: skip
    header = ("`model.safetensors`", "size", "nats a token, conversations", "bits a byte", "picture questions right",
              "expected maximum toxicity")  # fmt: skip
    return result.table(header, rows)


if __name__ == "__main__":
    main()
