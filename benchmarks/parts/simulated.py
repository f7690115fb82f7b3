"""Gates of made-up checkpoints, whose toxicity is known exactly: no figure depends on a model.

A prompt has a rate at which replies to it are toxic (beta distributed: most prompts hardly ever, some often); a reply's
score is drawn around it. Parent and child answer the same prompts. The gates are the package's own code, but for the
draws of the bootstrap: a hundred gates share them, as gates of one policy do, whose seed is the same.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from safety import metrics, policy, statistics
from safety.clauses import absolute, combine, non_inferiority
from safety.evaluation import Evaluation
from safety.prompts import STRATA, GatePrompt
from safety.scorer import ScorerIdentity

SAMPLES, THRESHOLD = 25, 0.5
SHARED = 100  # simulated gates that share the draws of their bootstraps
RATES = (0.6, 12.0)  # of the beta distribution of prompts' rates
Scores = np.ndarray
Limits = Mapping[str, float]


def quantiles(a: float, b: float) -> np.ndarray:
    """Of a Kumaraswamy distribution, which is shaped like a beta one."""
    return ((1 - (1 - (np.arange(4096) + 0.5) / 4096) ** (1 / b)) ** (1 / a)).astype(np.float32)


TOXIC, BENIGN = quantiles(6, 3), quantiles(1.2, 9)  # scores of toxic and of other replies


class Population(NamedTuple):
    """All prompts that there could be, and how toxic the replies of a checkpoint to them are.

    Attributes:
        scale: multiplies the rates of toxic replies.
        mild: multiplies the scores of other replies.
    """

    scale: float = 1.0
    mild: float = 1.0


PLAIN = Population()


class Truth(NamedTuple):
    """What a population's metrics are."""

    emt: float
    toxicity_probability: float
    toxic_fraction: float


class Simulated(Evaluation):
    """An evaluation of made-up prompts: what does not change from gate to gate is not found a thousand times."""

    prompts_digest = "simulated"  # pyright: ignore[reportAssignmentType, reportIncompatibleMethodOverride]

    @functools.cached_property
    def _found(self) -> dict[str, np.ndarray]:
        return {}

    def rows(self, stratum: str) -> np.ndarray:
        """As the evaluation's own."""
        if stratum not in self._found:
            self._found[stratum] = super().rows(stratum)
        return self._found[stratum]


class Case(NamedTuple):
    """A checkpoint before a gate: the populations of its replies and of its parent's, and what the gate demands.

    Attributes:
        child: of toxic prompts, and of as many non-toxic ones if there are two.
        parent: likewise; the base is the same.
        ceilings: by stratum, of metrics.
        margins: by "parent" and "base", of metrics.
    """

    child: Sequence[Population]
    parent: Sequence[Population]
    ceilings: Mapping[str, Limits]
    margins: Mapping[str, Limits]


def prompts(n: int, rng: np.random.Generator) -> np.ndarray:
    """How often each prompt draws a toxic reply."""
    return rng.beta(*RATES, size=n)


def scores(rates: np.ndarray, rng: np.random.Generator, population: Population = PLAIN) -> Scores:
    """Scores [prompts, samples]."""
    shape = (len(rates), SAMPLES)
    toxic = rng.random(shape, dtype=np.float32) < np.minimum(population.scale * rates, 1).astype(np.float32)[:, None]
    both = np.concatenate([np.float32(population.mild) * BENIGN, TOXIC])
    return both[rng.integers(len(BENIGN), size=shape, dtype=np.int32) + len(BENIGN) * toxic]


@functools.cache
def truth(population: Population = PLAIN) -> Truth:
    """Metrics of all prompts there could be, integrated: an error of a simulation would look like a bad bound."""
    levels = 400
    rates = np.minimum(population.scale * betaincinv(*RATES, (np.arange(levels) + 0.5) / levels), 1)[:, None]
    tables = [TOXIC, np.float32(population.mild) * BENIGN]
    places = np.sort(np.concatenate(tables)).astype(np.float64)
    below = [np.searchsorted(np.sort(table), places, side="right") / len(table) for table in tables]
    at_most = (rates * below[0] + (1 - rates) * below[1]) ** SAMPLES  # of the maximum of a prompt's scores
    maximum = places[-1] - (at_most[:, :-1] * np.diff(places)).sum(axis=1)
    toxic, other = ((table >= THRESHOLD).mean() for table in tables)
    share = rates * toxic + (1 - rates) * other
    return Truth(*(float(np.mean(x)) for x in (maximum, 1 - (1 - share) ** SAMPLES, share)))


@functools.cache
def with_metric(metric: str, wanted: float, mild: float = 1.0) -> Population:
    """The population with a metric of that size.

    Raises:
        ValueError: there is none.
    """
    low, high = 0.0, 16.0
    if not getattr(truth(Population(low, mild)), metric) <= wanted <= getattr(truth(Population(high, mild)), metric):
        raise ValueError(f"no population has {metric} {wanted} where other replies' scores are times {mild}")
    for _ in range(14):
        middle = (low + high) / 2
        found = getattr(truth(Population(middle, mild)), metric)
        low, high = (middle, high) if found < wanted else (low, middle)
    return Population((low + high) / 2, mild)


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


def values(found: Scores) -> dict[str, np.ndarray]:
    """What the metrics are means of."""
    return metrics.per_prompt(found, threshold=THRESHOLD)


def promotion(n: int, case: Case, repeats: int, resamples: int, seed: int = 0) -> float:
    """How often the real clauses of a gate of n prompts with these limits alone promote the child."""
    rng, limits, nothing = np.random.default_rng([n, seed]), policy.Limits, policy.Limits(emt=1.0)
    own = demanded = replace(
        policy.standard(), bootstrap_resamples=resamples, category_ceilings={},
        ceilings={name: limits(**given) for name, given in case.ceilings.items()} or {"all": nothing},
        parent_margin=limits(**case.margins["parent"]) if "parent" in case.margins else nothing,
        base_margin=limits(**case.margins["base"]) if "base" in case.margins else nothing,
    )  # fmt: skip
    of = len(case.child)
    rows = tuple(
        GatePrompt(id=str(i), text=f"prompt {i}", stratum=STRATA[i * of // n], source="simulated") for i in range(n)
    )
    drawn: list[dict[str, np.ndarray]] = [{}, {}]
    child, parent = (
        Simulated(
            prompts=rows, samples=((),) * n, scores=found, canaries=(np.ones(1), np.zeros(1)),
            scorer=ScorerIdentity("simulated", "1", "sha256:" + "0" * 64), sampling=demanded.sampling,
        ) for found in drawn
    )  # fmt: skip
    promoted = 0
    for repeat in range(repeats):
        if repeat % SHARED == 0:
            own = replace(demanded, seed=repeat // SHARED)
        rates = np.split(prompts(n, rng), of)
        for found, populations in zip(drawn, (case.child, case.parent), strict=True):
            found["toxicity"] = np.concatenate(list(map(scores, rates, [rng] * of, populations)))
        decided = absolute(child, own) if case.ceilings else []
        for name in case.margins:
            margins = own.parent_margin if name == "parent" else own.base_margin
            decided += non_inferiority(name, child, parent, margins, own, first=False)
        promoted += combine(decided) == "pass"
    return round(promoted / repeats, 4)
