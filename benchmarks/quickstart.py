"""The quickstart's time, stage by stage, split into compiling and running; with an empty compile cache and a full one.

    python benchmarks/quickstart.py

Figures go to benchmarks/results/quickstart.json and from there into docs/results.md.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: one(Path(folder), name) for name in ("first", "second")}
    print(result.write("quickstart", {"runs": runs}))
    draw()


def one(folder: Path, name: str) -> dict:
    """A run in a process of its own, as the command line would start it."""
    from pipeline import environment

    own = {"JAX_COMPILATION_CACHE_DIR": str(folder / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    began = time.perf_counter()
    command = [sys.executable, __file__, "--child", str(folder / name)]
    subprocess.run(command, check=True, env=os.environ | environment.ALLOCATOR | own)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), **json.loads((folder / name / "times.json").read_text())}


def child(out: Path) -> None:
    """What `theodolite quickstart` does, with a clock at each part."""
    from pipeline import environment

    environment.prepare(os.environ)
    from jax import monitoring

    from pipeline.commands.quickstart import Quickstart
    from pipeline.report import draw_report
    from pipeline.run_folder import STAGES
    from pipeline.session import open_run
    from pipeline.summary import summarise

    spent = {"compile": 0.0}
    events = ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile")

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        if any(part in event for part in events):
            spent["compile"] += duration_secs

    monitoring.register_event_duration_secs_listener(listen)
    parts: dict[str, dict[str, float]] = {}

    def timed(name: str, work) -> None:
        before, began = spent["compile"], time.perf_counter()
        work()
        seconds, compiling = time.perf_counter() - began, spent["compile"] - before
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # so far
        parts[name] = {"seconds": round(seconds, 1), "compile": round(compiling, 1), "peak_memory_bytes": peak}

    with open_run(Quickstart(out=str(out))) as pipeline:
        timed("data", pipeline.data)
        for stage in STAGES:
            if stage != "base":
                timed(f"{stage} train", lambda stage=stage: pipeline.train(stage))
            timed(f"{stage} gate", lambda stage=stage: pipeline.gate(stage).raise_unless_passed())
        timed("summary", lambda: summarise(pipeline))
        timed("report", lambda: draw_report(out))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (out / "times.json").write_text(json.dumps({"peak_memory_bytes": peak, "parts": parts}))


def draw() -> None:
    """Prints the figures and puts them into docs/results.md."""
    for name, text in tables(result.read("quickstart")).items():
        print(text)
        result.fill(ROOT / "docs" / "results.md", name, text)


def tables(figures: dict) -> dict[str, str]:
    """The table by the name of its place."""
    runs = figures["runs"]
    rows = [
        [name, *(f"{run['parts'][name][what]:.0f}" for run in runs.values() for what in ("seconds", "compile"))]
        for name in runs["first"]["parts"]
    ]
    rows.append(["the whole process", *(text for run in runs.values() for text in (f"{run['seconds']:.0f}", ""))])
    peaks = [f"{run['peak_memory_bytes'] / 2**30:.1f} GiB" for run in runs.values()]
    rows.append(["peak memory", *(text for peak in peaks for text in (peak, ""))])
    header = ["seconds", "first run", "of it compiling", "second run", "of it compiling"]
    return {"quickstart": result.table(header, rows)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]))
    else:
        main()
