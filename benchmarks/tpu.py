"""The trainers' programs compiled ahead of time for TPU topologies: memory, model FLOPs, floors, collectives.

    python benchmarks/tpu.py [CASE ...] --out DIR

Each case is a call of `theodolite tpu compile` that leaves a file in DIR; one that is there is not compiled again,
and the large ones take many minutes. Figures go to benchmarks/results/tpu.json and from there into docs/tpu.md. Without
cases only the table is written again.
"""

import argparse
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402

GIB = 2**30
CASES = {
    "tiny": "--topology v5e:2x2 --preset tiny",
    "tiny-16": "--topology v5e:4x4 --preset tiny --programs sft",
    "nano-1": "--preset nano-1 --programs sft",
    "nano-1-32k": "--preset nano-1 --programs sft --length 32768 --batch 1",
    "nano-1-ppo": "--preset nano-1 --programs ppo",
    "nano-1-score": "--preset nano-1 --programs score",
    "nano-1-reward": "--preset nano-1 --programs reward",
    "nano-1-lora": "--preset nano-1 --programs sft --lora_r 16",
    "nano-1-rollout": "--preset nano-1 --programs rollout",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "tpu", help="where the cases' files go")
    given = parser.parse_args()
    if given.cases:
        given.out.mkdir(parents=True, exist_ok=True)
        compiled = [one(name, given.out / f"{name}.json") for name in given.cases]
        print(result.write("tpu", {"libtpu": metadata.version("libtpu"), "cases": compiled}))
    draw()


def one(name: str, kept: Path) -> dict:
    """A case's figures, its command line, and the processor that compiled it: another one may compile the next."""
    words = ["tpu", "compile", *CASES[name].split()]
    if not kept.exists():
        subprocess.run([sys.executable, "-m", "pipeline.cli", *words, "--json", str(kept)], check=True, cwd=ROOT)
        figures = json.loads(kept.read_text(encoding="utf-8"))
        kept.write_text(json.dumps({"cpu": result.cpu_name(), **figures}, indent=1) + "\n", encoding="utf-8")
    return {"name": name, "command": " ".join(["theodolite", *words]), **json.loads(kept.read_text(encoding="utf-8"))}


def draw() -> None:
    """The table of docs/tpu.md."""
    rows = [row(case, finding) for case in result.read("tpu")["cases"] for finding in case["programs"]]
    header = ("model", "program", "on", "rows x tokens a device", "peak GiB", "beside GiB", "of GiB", "model FLOPs",
              "floor s", "collectives")  # fmt: skip
    result.fill(ROOT / "docs" / "tpu.md", "tpu", result.table(header, rows))


def row(case: dict, finding: dict) -> list[str]:
    """A program's line."""
    kinds = finding["collectives"]
    named = "-" if kinds is None else ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "none"
    peak = f"{finding['peak'] / GIB:.2f}"
    adapters = f", adapters of rank {case['lora_r']}" if case.get("lora_r") else ""
    return [
        case["preset"], finding["program"] + adapters, case["topology"], f"{case['batch']} x {case['length']:,}",
        peak if finding["fits"] else f"{peak} (does not fit)", f"{finding['beside'] / GIB:.2f}",
        f"{finding['memory'] / GIB:.2f}", f"{finding['model_flops']:.3g}", f"{finding['floor_seconds']:.3g}", named,
    ]  # fmt: skip


if __name__ == "__main__":
    main()
