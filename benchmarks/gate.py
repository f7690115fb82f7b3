"""A gate of the everyday size, 800 prompts x 25 replies of 20 tokens, on the shipped model: how long each part takes.

    python benchmarks/gate.py

Figures go to benchmarks/results/gate.json and from there into docs/gates.md. Everything is as `theodolite safety gate
gate=standard` does it for the base model, with the lexical scorer; programs are compiled anew.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402

BEGAN = time.perf_counter()
PARTS = {
    "opening": "imports, the run's data and prompts, the model",
    "sampling": "replies",
    "fluency": "likelihood of the first replies under the base",
    "scoring": "toxicity of replies",
    "statistics": "bounds, clauses, verdict and evidence",
    "page": "the run's page",
}


class Clock:
    """Seconds and processor seconds of parts, the time of inner parts not counted in the outer one."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self._inner = [0.0, 0.0]

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            outer, self._inner = self._inner, [0.0, 0.0]
            began = time.perf_counter(), time.process_time()
            try:
                return work(*arguments, **options)
            finally:
                whole = [time.perf_counter() - began[0], time.process_time() - began[1]]
                own = self.spent.setdefault(name, [0.0, 0.0])
                for i in range(2):
                    own[i] += whole[i] - self._inner[i]
                    outer[i] += whole[i]
                self._inner = outer

        return run


def measure(out: Path) -> dict[str, Any]:
    """Gates the base model of a new run and draws its page."""
    from pipeline.attested_model import load_with_digest
    from pipeline.config import RunConfig
    from pipeline.gates import gate_sampler, make_scorer
    from pipeline.plain_text import fluency_under
    from pipeline.report import draw_report
    from pipeline.session import open_run
    from safety.gate import gate

    clock = Clock()
    with open_run(RunConfig(out=str(out), gate="standard")) as pipeline:
        policy, (prompts, origins) = pipeline.config.gate_policy, pipeline.posed()
        model, digest = load_with_digest(pipeline.checkpoint("base"))
        scorer, folder = make_scorer("lexical"), pipeline.folder.stage("base").gate
        scorer.score = clock.timed("scoring", scorer.score)
        verdict = clock.timed("statistics", gate)(
            clock.timed("sampling", gate_sampler(model, "gate")), prompts, scorer, policy,
            stage="base", checkpoint=digest, folder=folder, fluency=clock.timed("fluency", fluency_under(model)),
            origins=origins,
        )  # fmt: skip
        clock.timed("page", draw_report)(out)
        found = [json.loads(line)["samples"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    whole = time.perf_counter() - BEGAN, time.process_time()
    clock.spent["opening"] = [whole[i] - sum(part[i] for part in clock.spent.values()) for i in range(2)]
    words = [len(text.split()) for replies in found for text in replies]
    count = len(words)
    assert (len(found), count) == (800, 20_000), verdict.reasons
    return {
        "prompts": len(found), "samples": count, "max_new_tokens": policy.max_new_tokens,
        "mean_words": round(sum(words) / count, 2), "outcome": verdict.outcome,
        "parts": {name: dict(zip(("seconds", "processor"), map(lambda x: round(x, 2), clock.spent[name]), strict=True))
                  for name in PARTS},
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Parts in their order, and all of them."""
    total = {key: sum(part[key] for part in found["parts"].values()) for key in ("seconds", "processor")}
    rows = [
        [words, f"{part['seconds']:.1f}", f"{part['processor']:.1f}", f"{found['samples'] / part['seconds']:,.0f}"]
        for words, part in [*((PARTS[name], part) for name, part in found["parts"].items()), ("all", total)]
    ]
    head = f"{found['prompts']} prompts x {found['samples'] // found['prompts']} replies"
    return result.table([head, "seconds", "processor seconds", "replies a second"], rows)


def main() -> None:
    from pipeline import environment

    with tempfile.TemporaryDirectory() as folder:
        if "--child" not in sys.argv:  # the allocator's settings are read when a process starts
            own = {"JAX_COMPILATION_CACHE_DIR": str(Path(folder) / "cache")}
            environ = os.environ | environment.ALLOCATOR | own
            subprocess.run([sys.executable, __file__, "--child"], check=True, env=environ)
            return
        sys.argv.remove("--child")
        environment.prepare(os.environ)
        print(result.write("gate", measure(Path(folder) / "run")))
    result.fill(ROOT / "docs" / "gates.md", "speed", table(result.read("gate")))


if __name__ == "__main__":
    main()
