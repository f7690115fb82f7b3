"""Do the gates' bounds hold what they promise? Coverage, false promotions and power, by simulation.

    python benchmarks/coverage.py

Figures go to benchmarks/results/coverage.json and from there into docs/gates.md. A simulated prompt has a rate at which
replies to it are toxic (beta distributed: most prompts hardly ever, some often); a reply's score is drawn around it.
Parent and child answer the same prompts. No figure depends on a model.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from safety import metrics, policy, proportions, statistics  # noqa: E402
from safety.clauses import absolute, combine, non_inferiority  # noqa: E402
from safety.evaluation import Evaluation  # noqa: E402
from safety.power import power_at_margin  # noqa: E402
from safety.prompts import GatePrompt  # noqa: E402
from safety.scorer import ScorerIdentity  # noqa: E402

SAMPLES, ALPHA = 25, 0.05
SIZES = (30, 100, 300, 1000)
REPEATS, RESAMPLES = 2000, 500
Scores = np.ndarray


def quantiles(a: float, b: float) -> np.ndarray:
    """Of a Kumaraswamy distribution, which is shaped like a beta one."""
    return (1 - (1 - (np.arange(4096) + 0.5) / 4096) ** (1 / b)) ** (1 / a)


TOXIC, BENIGN = quantiles(6, 3), quantiles(1.2, 9)  # scores of toxic and of other replies


class Truth(NamedTuple):
    """What a population's metrics are, from very many prompts."""

    emt: float
    toxicity_probability: float
    toxic_fraction: float


def prompts(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each prompt draws a toxic reply."""
    return rng.beta(0.6, 12, size=n)


def scores(rates: np.ndarray, rng: np.random.Generator, *, scale: float = 1.0) -> Scores:
    """Scores [prompts, samples]; `scale` makes a checkpoint more toxic, or less."""
    shape = (len(rates), SAMPLES)
    toxic = rng.random(shape, dtype=np.float32) < np.minimum(scale * rates, 1).astype(np.float32)[:, None]
    place = rng.integers(len(TOXIC), size=shape, dtype=np.int32)
    return np.where(toxic, TOXIC[place], BENIGN[place])


def values(found: Scores) -> dict[str, np.ndarray]:
    return metrics.per_prompt(found, threshold=0.5)


def truth(scale: float = 1.0, n: int = 400_000) -> Truth:
    """Metrics of a very large set."""
    rng = np.random.default_rng(12345)
    rates = prompts(n, rng)
    total = np.zeros(3)
    for part in np.array_split(rates, 20):
        found = values(scores(part, rng, scale=scale))
        total += [found[name].sum() for name in metrics.METRICS]
    return Truth(*(float(x) for x in total / n))


def coverage(n: int, real: Truth, repeats: int, resamples: int) -> dict[str, float]:
    """How often an upper bound at 95 % is not below the truth."""
    rng = np.random.default_rng(n)
    options = {"alpha": ALPHA, "sides": "upper"}
    boot = {"resamples": resamples, **options}
    hits: dict[str, float] = {}

    def count(name: str, bound: float, wanted: float) -> None:
        hits[name] = hits.get(name, 0.0) + (bound >= wanted)

    for seed in range(repeats):
        rates = prompts(n, rng)
        child, parent = (values(scores(rates, rng)) for _ in range(2))
        emt, tp, fraction = (child[name] for name in metrics.METRICS)
        count("EMT, cluster bootstrap", statistics.bootstrap_mean(emt, seed=seed, **boot).high, real.emt)
        cp = statistics.clopper_pearson(tp.sum(), n, **options).high
        count("TP, Clopper-Pearson", cp, real.toxicity_probability)
        clustered = statistics.clustered_fraction(fraction, samples=SAMPLES, seed=seed, **boot).high
        count("fraction, clustered", clustered, real.toxic_fraction)
        naive = proportions.wilson(fraction.sum() * SAMPLES, n * SAMPLES, **options).high
        count("fraction, as if independent", naive, real.toxic_fraction)
        for name, words in (("emt", "EMT"), ("toxicity_probability", "TP"), ("toxic_fraction", "fraction")):
            paired = statistics.paired_bootstrap(child[name], parent[name], seed=seed, **boot).high
            count(f"{words}, paired difference", paired, 0.0)
        cells = _cells(tp, parent["toxicity_probability"])
        count("TP, Newcombe paired", proportions.newcombe_paired(*cells, **options).high, 0.0)
        other = values(scores(prompts(n, rng), rng))["toxicity_probability"].sum()
        independent = proportions.newcombe((tp.sum(), other), (n, n), **options).high
        count("TP, Newcombe independent", independent, 0.0)
        count("TP, Wilson", proportions.wilson(tp.sum(), n, **options).high, real.toxicity_probability)
    return {name: round(float(found) / repeats, 4) for name, found in hits.items()}


def _cells(ours: np.ndarray, theirs: np.ndarray) -> tuple[int, int, int, int]:
    a, b = ours > 0, theirs > 0
    return int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())


def scale_for(difference: float, base: Truth) -> float:
    """By how much to multiply the rates for an EMT that is higher by `difference`."""
    low, high = 1.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if truth(middle, 100_000).emt < base.emt + difference else (low, middle)
    return (low + high) / 2


def gate_policy(n: int, margin: float, ceiling: float, resamples: int) -> policy.GatePolicy:
    """The clauses on expected maximum toxicity, as in the presets."""
    limits = policy.Limits
    return replace(
        policy.standard(), prompts_per_stratum=n // 2, bootstrap_resamples=resamples, seed=0,
        ceilings={"all": limits(emt=ceiling)}, parent_margin=limits(emt=margin), base_margin=limits(emt=1.0),
        category_ceilings={},
    )  # fmt: skip


def promotion(n: int, margin: float, ceiling: float, scale: float, repeats: int, resamples: int) -> float:
    """How often the real clauses promote a child whose rates are `scale` times its parent's."""
    rng, demanded, promoted = np.random.default_rng(n), gate_policy(n, margin, ceiling, resamples), 0
    rows = tuple(
        GatePrompt(id=str(i), text=f"prompt {i}", stratum="toxic" if i % 2 else "non-toxic", source="simulated")
        for i in range(n)
    )
    blank = Evaluation(
        prompts=rows, samples=((),) * n, scores={}, canaries=(np.ones(1), np.zeros(1)),
        scorer=ScorerIdentity("simulated", "1", "sha256:" + "0" * 64), sampling=demanded.sampling,
    )  # fmt: skip
    for seed in range(repeats):
        rates = prompts(n, rng)
        parent, child = (replace(blank, scores={"toxicity": scores(rates, rng, scale=s)}) for s in (1.0, scale))
        own = replace(demanded, seed=seed)
        pair = [replace(side, sampling=own.sampling) for side in (child, parent)]
        decided = [*absolute(pair[0], own)]
        decided += non_inferiority("parent", pair[0], pair[1], own.parent_margin, own, first=False)
        promoted += combine(decided) == "pass"
    return round(promoted / repeats, 4)


def simulate(repeats: int = REPEATS, resamples: int = RESAMPLES, say: Callable[[str], object] = print) -> dict:
    """All figures."""
    real = truth()
    covered = {}
    for n in SIZES:
        covered[str(n)] = coverage(n, real, repeats, resamples)
        say(f"coverage at {n}: {covered[str(n)]}")
    rng = np.random.default_rng(0)
    rates = prompts(100_000, rng)
    difference = values(scores(rates, rng))["emt"] - values(scores(rates, rng))["emt"]
    sd, margin = float(difference.std()), 0.05
    scale = scale_for(margin, real)
    worse, gates = truth(scale), []
    for n in SIZES:
        row = {"prompts": n, "margin": margin, "sd": round(sd, 4), "scale": round(scale, 4)}
        cases = {"at the margin": (margin, 1.0, scale), "at the ceiling": (1.0, real.emt, 1.0),
                 "at both": (margin, worse.emt, scale), "no worse": (margin, 1.0, 1.0)}  # fmt: skip
        row |= {name: promotion(n, *case, repeats, resamples) for name, case in cases.items()}
        row["no worse, by the formula"] = round(power_at_margin(n, margin, sd=sd, alpha=ALPHA), 4)
        gates.append(row)
        say(f"promotion: {row}")
    return {"repeats": repeats, "resamples": resamples, "samples": SAMPLES, "truth": real._asdict(),
            "coverage": covered, "promotion": gates}  # fmt: skip


def tables(figures: dict) -> dict[str, str]:
    """The tables by the name of their place."""
    names = list(next(iter(figures["coverage"].values())))
    rows = [[name, *(f"{figures['coverage'][str(n)][name]:.3f}" for n in SIZES)] for name in names]
    what = ("at the margin", "at the ceiling", "at both", "no worse", "no worse, by the formula")
    gates = [[str(row["prompts"]), *(f"{row[name]:.3f}" for name in what)] for row in figures["promotion"]]
    return {
        "coverage": result.table(["upper bound at 95 %, prompts", *map(str, SIZES)], rows),
        "promotion": result.table(["prompts", *what], gates),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="simulated gates for each figure")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="of each bootstrap")
    arguments = parser.parse_args()
    print(result.write("coverage", simulate(arguments.repeats, arguments.resamples)))
    for name, text in tables(result.read("coverage")).items():
        result.fill(ROOT / "docs" / "gates.md", name, text)


if __name__ == "__main__":
    main()
