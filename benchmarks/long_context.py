"""Time and memory of `theodolite base evaluate long-context` at lengths up to 32,768 tokens.

    python benchmarks/long_context.py [--lengths 8192 32768] [--data DIR] [--out DIR]

The model is the shipped one with a config that lets it read that much. It was trained on 512 tokens: what it finds says
nothing, what it takes is the same for any parameters. Each length is one run of the command, in a process of its own
and without a cache of compiled programs: one question for a value half way down, and the loss by position in one text,
of the packaged conversations below DIR. Figures go to benchmarks/results/long_context.json and from there into
docs/published_models.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.packaged import packaged_files  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[8192, 32_768], help="tokens of a context")
    parser.add_argument("--data", type=Path, help="folder with pretrain.jsonl")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "long_context", help="where models and pages go")
    given = parser.parse_args()
    rows = packaged_files(given.data) / "pretrain.jsonl"
    print(result.write("long_context", {"runs": [measured(length, rows, given.out) for length in given.lengths]}))
    for name, table in tables(result.read("long_context")).items():
        result.fill(ROOT / "docs" / "published_models.md", name, table)


def measured(length: int, rows: Path, out: Path) -> dict[str, Any]:
    """What one run of the command took, and what it wrote."""
    model, page = reading(length, out), out / f"page-{length}"
    words = [f"checkpoint={model}", f"lengths=[{length}]", "depths=[0.5]", "rows=1", "texts=1", f"data={rows}",
             f"out={page}"]  # fmt: skip
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "THEODOLITE_COMPILE_CACHE": "off"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "pipeline.cli", "base", "evaluate", "long-context", *words]
    running = subprocess.Popen(command, cwd=ROOT, env=environment)
    _, status, used = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    written = json.loads((page / "long_context.json").read_text(encoding="utf-8"))
    return {
        "length": length, "seconds": seconds, "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": 1024 * used.ru_maxrss, "retrieval": written["retrieval"], "loss": written["loss"],
    }  # fmt: skip


def reading(length: int, out: Path) -> Path:
    """The folder of a model of the shipped one's parameters whose context is that long."""
    from base_model import checkpoint
    from pipeline.config import shipped_model

    folder = out / f"model-{length}"
    if not folder.exists():
        shipped = checkpoint.load(shipped_model())
        longer = replace(shipped, config=replace(shipped.config, max_context=length))
        checkpoint.save(longer, folder, weights="safetensors")
    return folder


def tables(figures: dict[str, Any]) -> dict[str, str]:
    """The table of the document by the name of its place."""
    rows = [
        [f"{run['length']:,}", f"{run['retrieval'][0]['tokens']:,}", f"{run['seconds']:.0f}",
         f"{run['processor_seconds']:.0f}", f"{run['peak_bytes'] / 2**30:.1f}"]
        for run in figures["runs"]
    ]  # fmt: skip
    header = ("context", "tokens of the question", "seconds", "processor seconds", "peak memory, GiB")
    return {"long": result.table(header, rows)}


if __name__ == "__main__":
    main()
