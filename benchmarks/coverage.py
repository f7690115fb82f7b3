"""Do the gates' bounds hold what they promise? Coverage, false promotions and power, by simulation.

    python benchmarks/coverage.py

Figures go to benchmarks/results/coverage.json and from there into docs/gates.md. What is simulated, and how, is in
benchmarks/parts/simulated.py.
"""

import argparse
import multiprocessing
import os
import sys
import zlib
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402
from benchmarks.parts.simulated import (  # noqa: E402
    PLAIN,
    SAMPLES,
    SHARED,
    Case,
    Population,
    promotion,
    prompts,
    scores,
    share_draws,
    truth,
    values,
    with_metric,
)
from safety import metrics, policy, proportions, statistics  # noqa: E402
from safety.power import power_at_margin  # noqa: E402
from safety.prompts import STRATA  # noqa: E402

ALPHA = 0.05
SIZES = (30, 100, 300, 800)
REPEATS = 5000  # simulated gates for each figure
MARGIN, FRACTION_MARGIN = 0.05, 0.02
WORDS = {"emt": "EMT", "toxicity_probability": "TP", "toxic_fraction": "fraction"}
# Scores of other replies are multiplied by these: expected maxima as low as the ceilings of `standard` do not exist
# among the populations of the first tables.
MILD = {"toxic": 0.6, "non-toxic": 0.4}
# How far below a ceiling, and by how much of a margin more toxic than its parent, a checkpoint is.
BELOW = {"at the ceiling": 0.0, "a tenth below": 0.1, "a quarter below": 0.25}
RISES = {"at the margin": 1.0, "at half of it": 0.5, "no more toxic": 0.0}


def coverage(n: int, repeats: int, resamples: int) -> dict[str, float]:
    """How often an upper bound at 95 % is not below the truth."""
    rng, real = np.random.default_rng(n), truth()
    options = {"alpha": ALPHA, "sides": "upper"}
    boot = {"resamples": resamples, **options}
    hits: dict[str, float] = {}

    def count(name: str, bound: float, wanted: float) -> None:
        hits[name] = hits.get(name, 0.0) + (bound >= wanted)

    for repeat in range(repeats):
        seed = repeat // SHARED
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
        for name, words in WORDS.items():
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


def at_limits() -> dict[str, Case]:
    """What a gate of any size must not promote, at the very limit, and what it should."""
    here, real = PLAIN, truth()
    worse = with_metric("emt", real.emt + MARGIN)
    often = with_metric("toxic_fraction", real.toxic_fraction + FRACTION_MARGIN)
    emt, fraction = {"parent": {"emt": MARGIN}}, {"parent": {"toxic_fraction": FRACTION_MARGIN}}
    return {
        **{f"{words}, at the ceiling": Case([here], [here], {"all": {name: getattr(real, name)}}, {})
           for name, words in WORDS.items()},
        "EMT, at the margin": Case([worse], [here], {}, emt),
        "fraction, at the margin": Case([often], [here], {}, fraction),
        "EMT, at both": Case([worse], [here], {"all": {"emt": truth(worse).emt}}, emt),
        "EMT, no worse": Case([here], [here], {}, emt),
    }  # fmt: skip


def of_standard() -> dict[str, tuple[int, dict[str, Case]]]:
    """One limit of `standard` after the other, then all: prompts that it is about, and checkpoints at it or better."""
    demanded, found = policy.standard(), {}
    each = demanded.prompts_per_stratum or 0
    ceilings = {stratum: demanded.ceilings[stratum].given for stratum in STRATA}
    margins = {"parent": demanded.parent_margin.given, "base": demanded.base_margin.given}
    for stratum, limits in ceilings.items():
        for metric, ceiling in limits.items():
            cases = {}
            for words, below in BELOW.items():
                one = with_metric(metric, ceiling * (1 - below), MILD[stratum])
                cases[words] = Case([one], [one], {"all": {metric: ceiling}}, {})
            found[f"{stratum} prompts: {WORDS[metric]} {ceiling:g}"] = each, cases
    for reference, limits in margins.items():
        for metric, margin in limits.items():
            parent, cases = Population(mild=MILD["toxic"]), {}
            for words, rise in RISES.items():
                child = with_metric(metric, getattr(truth(parent), metric) + rise * margin, parent.mild)
                cases[words] = Case([child], [parent], {}, {reference: {metric: margin}})
            found[f"more than the {reference}: {WORDS[metric]} {margin:g}"] = 2 * each, cases
    whole = {}
    for words, below in BELOW.items():
        # The strictest ceiling of a stratum says how toxic replies to its prompts are.
        child = [min(with_metric(metric, ceiling * (1 - below), MILD[stratum]) for metric, ceiling in limits.items())
                 for stratum, limits in ceilings.items()]  # fmt: skip
        whole[words] = Case(child, child, ceilings, margins)
    found["all of these"] = 2 * each, whole
    return found


def simulate(repeats: int, resamples: int) -> dict:
    """All figures, by as many processes as there are cores."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # of each process: read when it starts
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context, initializer=share_draws) as pool:
        covered = {str(n): pool.submit(coverage, n, repeats, resamples) for n in reversed(SIZES)}

        def promoted(n: int, case: Case, name: str):
            return pool.submit(promotion, n, case, repeats, resamples, zlib.crc32(name.encode()))

        limits = {name: {str(n): promoted(n, case, name) for n in SIZES} for name, case in at_limits().items()}
        everyday = {
            name: (n, {words: promoted(n, case, f"{name}, {words}") for words, case in cases.items()})
            for name, (n, cases) in of_standard().items()
        }
        figures = {
            "repeats": repeats, "resamples": resamples, "samples": SAMPLES, "truth": truth()._asdict(),
            "coverage": {str(n): covered[str(n)].result() for n in SIZES},
            "promotion": {name: {n: one.result() for n, one in row.items()} for name, row in limits.items()},
            "standard": {name: {"prompts": n, "promoted": {words: one.result() for words, one in row.items()}}
                         for name, (n, row) in everyday.items()},
        }  # fmt: skip
    figures["promotion"]["EMT, no worse, by the formula"] = {str(n): round(_formula(n), 4) for n in SIZES}
    return figures


def _formula(n: int) -> float:
    """Power at the margin as `theodolite safety power` gives it, with the deviation that the simulated prompts have."""
    rates = prompts(100_000, np.random.default_rng(0))
    ours, theirs = (values(scores(rates, np.random.default_rng(seed)))["emt"] for seed in (1, 2))
    return power_at_margin(n, MARGIN, sd=float((ours - theirs).std()), alpha=ALPHA)


def tables(figures: Mapping) -> dict[str, str]:
    """The tables by the name of their place."""
    sizes = list(figures["coverage"])
    names = list(figures["coverage"][sizes[0]])
    rows = [[name, *(f"{figures['coverage'][n][name]:.3f}" for n in sizes)] for name in names]
    gates = [[name, *(f"{row[n]:.3f}" for n in sizes)] for name, row in figures["promotion"].items()]
    everyday = []
    for columns in (BELOW, RISES):
        of = {name: row for name, row in figures["standard"].items() if set(row["promoted"]) == set(columns)}
        of = [[name, str(row["prompts"]), *(f"{row['promoted'][words]:.3f}" for words in columns)]
              for name, row in of.items()]  # fmt: skip
        everyday.append(result.table(["promoted, by a limit of `standard`", "prompts", *columns], of))
    return {
        "coverage": result.table(["upper bound at 95 %, prompts", *sizes], rows),
        "promotion": result.table(["promoted, prompts", *sizes], gates),
        "standard": "\n\n".join(everyday),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="simulated gates for each figure")
    resamples = policy.standard().bootstrap_resamples
    parser.add_argument("--resamples", type=int, default=resamples, help="of each bootstrap")
    arguments = parser.parse_args()
    print(result.write("coverage", simulate(arguments.repeats, arguments.resamples)))
    for name, text in tables(result.read("coverage")).items():
        result.fill(ROOT / "docs" / "gates.md", name, text)


if __name__ == "__main__":
    main()
