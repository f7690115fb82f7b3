"""Do the gates' bounds hold what they promise? Coverage, false promotions and power, by simulation.

    python benchmarks/coverage.py

Figures go to benchmarks/results/coverage.json and from there into docs/gates.md. A simulated prompt has a rate at which
replies to it are toxic (beta distributed: most prompts hardly ever, some often); a reply's score is drawn around it.
Parent and child answer the same prompts. No figure depends on a model. What is simulated is the gates' own code, but
for the draws of the bootstrap: a hundred gates share them, as gates of one policy do, whose seed is the same.
"""

import argparse
import functools
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

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
SIZES = (30, 100, 300, 800)
REPEATS, SHARED = 2000, 100  # simulated gates for each figure, and how many of them share the draws of their bootstraps
THRESHOLD, MARGIN, FRACTION_MARGIN = 0.5, 0.05, 0.02
RATES = (0.6, 12.0)  # of the beta distribution of prompts' rates
Scores = np.ndarray


def quantiles(a: float, b: float) -> np.ndarray:
    """Of a Kumaraswamy distribution, which is shaped like a beta one."""
    return (1 - (1 - (np.arange(4096) + 0.5) / 4096) ** (1 / b)) ** (1 / a)


TOXIC, BENIGN = quantiles(6, 3), quantiles(1.2, 9)  # scores of toxic and of other replies
_BOTH = np.concatenate([BENIGN, TOXIC]).astype(np.float32)


class Truth(NamedTuple):
    """What a population's metrics are."""

    emt: float
    toxicity_probability: float
    toxic_fraction: float


class Simulated(Evaluation):
    """An evaluation of made-up prompts, whose digest nobody needs to take a thousand times."""

    prompts_digest = "simulated"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]


class Case(NamedTuple):
    """A checkpoint at a limit: what its gate demands, and how toxic its population and its parent's are."""

    ceilings: dict[str, float]
    margins: dict[str, float]
    child: float
    parent: float


def prompts(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each prompt draws a toxic reply."""
    return rng.beta(*RATES, size=n)


def scores(rates: np.ndarray, rng: np.random.Generator, *, scale: float = 1.0) -> Scores:
    """Scores [prompts, samples]; `scale` makes a checkpoint more toxic, or less."""
    shape = (len(rates), SAMPLES)
    toxic = rng.random(shape, dtype=np.float32) < np.minimum(scale * rates, 1).astype(np.float32)[:, None]
    return _BOTH[rng.integers(len(BENIGN), size=shape, dtype=np.int32) + len(BENIGN) * toxic]


def values(found: Scores) -> dict[str, np.ndarray]:
    return metrics.per_prompt(found, threshold=THRESHOLD)


@functools.cache
def truth(scale: float = 1.0) -> Truth:
    """Metrics of all prompts there could be, integrated: an error of a simulation would look like a bad bound."""
    levels = 400
    rates = np.minimum(scale * betaincinv(*RATES, (np.arange(levels) + 0.5) / levels), 1)[:, None]
    places = np.sort(np.concatenate([TOXIC, BENIGN]))
    below = [np.searchsorted(np.sort(table), places, side="right") / len(table) for table in (TOXIC, BENIGN)]
    at_most = (rates * below[0] + (1 - rates) * below[1]) ** SAMPLES  # of the maximum of a prompt's scores
    maximum = places[-1] - (at_most[:, :-1] * np.diff(places)).sum(axis=1)
    share = rates * (TOXIC >= THRESHOLD).mean() + (1 - rates) * (BENIGN >= THRESHOLD).mean()
    return Truth(*(float(np.mean(x)) for x in (maximum, 1 - (1 - share) ** SAMPLES, share)))


def scale_for(metric: str, wanted: float) -> float:
    """By how much to multiply the rates for a metric of that size."""
    low, high = 0.0, 16.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if getattr(truth(middle), metric) < wanted else (low, middle)
    return (low + high) / 2


@functools.lru_cache(maxsize=8)
def counts(prompts: int, resamples: int, state: int, increment: int) -> np.ndarray:
    """How often each prompt is drawn in each resample by a generator in that state, float32 [resamples, prompts]."""
    bits = np.random.PCG64()
    bits.state = {"bit_generator": "PCG64", "state": {"state": state, "inc": increment}, "has_uint32": 0, "uinteger": 0}
    drawn = np.random.Generator(bits).integers(prompts, size=(resamples, prompts))
    return np.stack([np.bincount(row, minlength=prompts) for row in drawn]).astype(np.float32)


def shared_means(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means of resamples like `safety.statistics`' own, whose draws were kept."""
    state = rng.bit_generator.state["state"]
    drawn = counts(len(values), resamples, state["state"], state["inc"])
    return np.asarray(drawn @ values.astype(np.float32) / len(values), np.float64)


def share_draws() -> None:
    """Makes the gates' bootstrap use `shared_means`, after seeing that it gives the same."""
    some = np.random.default_rng(1).random(300)
    own = statistics.bootstrap_mean(some, seed=3)
    statistics._resampled_means = shared_means
    ours = statistics.bootstrap_mean(some, seed=3)
    assert np.allclose(own, ours, rtol=0, atol=1e-5), (own, ours)


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


def promotion(n: int, case: Case, repeats: int, resamples: int) -> float:
    """How often the real clauses of a gate with these limits alone promote the child."""
    rng, limits = np.random.default_rng(n), policy.Limits
    demanded = replace(
        policy.standard(), bootstrap_resamples=resamples, ceilings={"all": limits(**case.ceilings or {"emt": 1.0})},
        parent_margin=limits(**case.margins or {"emt": 1.0}), category_ceilings={},
    )  # fmt: skip
    rows = tuple(
        GatePrompt(id=str(i), text=f"prompt {i}", stratum="toxic" if i % 2 else "non-toxic", source="simulated")
        for i in range(n)
    )
    blank = Simulated(
        prompts=rows, samples=((),) * n, scores={}, canaries=(np.ones(1), np.zeros(1)),
        scorer=ScorerIdentity("simulated", "1", "sha256:" + "0" * 64), sampling=demanded.sampling,
    )  # fmt: skip
    promoted = 0
    for repeat in range(repeats):
        own, rates = replace(demanded, seed=repeat // SHARED), prompts(n, rng)
        child, parent = (
            replace(blank, scores={"toxicity": scores(rates, rng, scale=scale)}) for scale in (case.child, case.parent)
        )
        decided = absolute(child, own) if case.ceilings else []
        if case.margins:
            decided += non_inferiority("parent", child, parent, own.parent_margin, own, first=False)
        promoted += combine(decided) == "pass"
    return round(promoted / repeats, 4)


def at_limits() -> dict[str, Case]:
    """What a gate of any size must not promote, at the very limit, and what it should."""
    real = truth()._asdict()
    worse = scale_for("emt", real["emt"] + MARGIN)
    ceilings = {f"{words}, at the ceiling": Case({name: real[name]}, {}, 1, 1) for name, words in WORDS.items()}
    return {
        **ceilings,
        "EMT, at the margin": Case({}, {"emt": MARGIN}, worse, 1),
        "fraction, at the margin": Case(
            {}, {"toxic_fraction": FRACTION_MARGIN},
            scale_for("toxic_fraction", real["toxic_fraction"] + FRACTION_MARGIN), 1,
        ),
        "EMT, at both": Case({"emt": truth(worse).emt}, {"emt": MARGIN}, worse, 1),
        "EMT, no worse": Case({}, {"emt": MARGIN}, 1, 1),
    }  # fmt: skip


def of_standard() -> dict[str, tuple[int, Case]]:
    """A checkpoint at one limit of `standard` after the other, and how many prompts that limit is about.

    The score's shape allows no expected maximum as low as the ceiling of non-toxic prompts: there the ceiling is put
    where the population with the ceiling's toxicity probability is.
    """
    demanded, found = policy.standard(), {}
    each = demanded.prompts_per_stratum or 0
    for stratum, limits in demanded.ceilings.items():
        for metric, ceiling in limits.given.items():
            least = getattr(truth(0.0), metric)
            probable = limits.toxicity_probability or 0.5
            scale = scale_for(metric, ceiling) if ceiling > least else scale_for("toxicity_probability", probable)
            case = Case({metric: getattr(truth(scale), metric)}, {}, scale, 1)
            found[f"{stratum} prompts: {WORDS[metric]} {ceiling:g}"] = each, case
    for name, margins in (("parent", demanded.parent_margin), ("base", demanded.base_margin)):
        for metric, margin in margins.given.items():
            scale = scale_for(metric, getattr(truth(), metric) + margin)
            found[f"margin to the {name}: {WORDS[metric]} {margin:g}"] = 2 * each, Case({}, {metric: margin}, scale, 1)
    return found


WORDS = {"emt": "EMT", "toxicity_probability": "TP", "toxic_fraction": "fraction"}


def simulate(repeats: int, resamples: int, only: str = "", say: Callable[[str], object] = print) -> dict:
    """All figures, or of promotions those of cases whose names have the regular expression `only` in them."""
    share_draws()
    covered = {}
    for n in SIZES:
        covered[str(n)] = coverage(n, repeats, resamples)
        say(f"coverage at {n}: {covered[str(n)]}")
    promoted = {}
    for name, case in _named(at_limits(), only).items():
        promoted[name] = {str(n): promotion(n, case, repeats, resamples) for n in SIZES}
        say(f"promotion, {name}: {promoted[name]}")
    if "EMT, no worse" in promoted:
        rates = prompts(100_000, np.random.default_rng(0))
        pair = [values(scores(rates, np.random.default_rng(seed)))["emt"] for seed in (1, 2)]
        sd = float((pair[0] - pair[1]).std())
        promoted["EMT, no worse, by the formula"] = {
            str(n): round(power_at_margin(n, MARGIN, sd=sd, alpha=ALPHA), 4) for n in SIZES
        }
    everyday = {}
    for name, (n, case) in _named(of_standard(), only).items():
        everyday[name] = {"prompts": n, "promoted": promotion(n, case, repeats, resamples)}
        say(f"standard, {name}: {everyday[name]}")
    return {"repeats": repeats, "resamples": resamples, "samples": SAMPLES, "truth": truth()._asdict(),
            "coverage": covered, "promotion": promoted, "standard": everyday}  # fmt: skip


def _named(cases: dict, only: str) -> dict:
    return {name: case for name, case in cases.items() if re.search(only, name)}


def tables(figures: dict) -> dict[str, str]:
    """The tables by the name of their place."""
    sizes = list(figures["coverage"])
    names = list(figures["coverage"][sizes[0]])
    rows = [[name, *(f"{figures['coverage'][n][name]:.3f}" for n in sizes)] for name in names]
    gates = [[name, *(f"{row[n]:.3f}" for n in sizes)] for name, row in figures["promotion"].items()]
    everyday = [[name, str(row["prompts"]), f"{row['promoted']:.3f}"] for name, row in figures["standard"].items()]
    return {
        "coverage": result.table(["upper bound at 95 %, prompts", *sizes], rows),
        "promotion": result.table(["promoted, prompts", *sizes], gates),
        "standard": result.table(["at the limit of `standard`", "prompts", "promoted"], everyday)
        if everyday
        else "Not measured yet.",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="simulated gates for each figure")
    resamples = policy.standard().bootstrap_resamples
    parser.add_argument("--resamples", type=int, default=resamples, help="of each bootstrap")
    parser.add_argument("--only", default="", help="regular expression: cases of promotion to simulate")
    arguments = parser.parse_args()
    print(result.write("coverage", simulate(arguments.repeats, arguments.resamples, arguments.only)))
    for name, text in tables(result.read("coverage")).items():
        result.fill(ROOT / "docs" / "gates.md", name, text)


if __name__ == "__main__":
    main()
