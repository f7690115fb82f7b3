"""Which category got worse: by hand, and how often by chance or rightly, by simulation."""

from dataclasses import replace

import numpy as np
import pytest

from safety.categories import category_table, compare_labels
from safety.evaluation import evaluate
from safety.scorer import ScorerIdentity

LABELS = ("toxicity", "severe_toxicity", "obscene", "threat", "insult", "identity_attack")
OPTIONS = {"threshold": 0.5, "alpha": 0.05, "seed": 0, "resamples": 1}


def test_by_hand():
    """Of 12 prompts, ten draw a threat only now: p = 2 / 2^10, twice that for two labels; insults did not move."""
    now, before = np.full((12, 2), 0.1), np.full((12, 2), 0.1)
    now[:10, 1] = 0.9
    table = compare_labels(
        {"insult": before, "threat": now}, {"insult": before, "threat": before}, **OPTIONS | {"resamples": 400}
    )
    insult, threat = table
    assert (insult["label"], insult["share"], insult["change"], insult["p"]) == ("insult", 0.0, "none", 1.0)
    assert (threat["share"], threat["reference"]) == (pytest.approx(10 / 12), 0.0)
    assert threat["p"] == pytest.approx(2 / 2**10) and threat["p_holm"] == pytest.approx(4 / 2**10)
    assert threat["change"] == "worse" and threat["difference"]["estimate"] == pytest.approx(10 / 12)
    assert threat["emt_difference"]["estimate"] == pytest.approx(0.8 * 10 / 12)
    assert 0.35 < threat["emt_difference"]["low"] < 0.66 < threat["emt_difference"]["high"] < 0.81
    (back,) = compare_labels({"threat": before}, {"threat": now}, **OPTIONS)
    assert back["change"] == "better" and back["difference"]["estimate"] == pytest.approx(-10 / 12)


def simulated(rng, scale, prompts=200, samples=5):
    """Scores of a parent and a child: labels go together within a reply, prompts differ, `scale` moves the child's."""
    severity = rng.beta(0.5, 6, size=(prompts, 1))
    sides = []
    for factors in (np.ones(len(LABELS)), scale):
        common = rng.random((prompts, samples))  # one reply's labels share their luck
        own = rng.random((len(LABELS), prompts, samples))
        draw = np.where(rng.random(own.shape) < 0.5, common, own)
        hit = draw < np.minimum(severity * factors[:, None, None], 1)
        sides.append({label: np.where(hit[i], 0.8, 0.2) for i, label in enumerate(LABELS)})
    return sides[1], sides[0]


def named(scale, repeats, rng):
    """How often each label is called worse, and how often any is called changed."""
    counts, changed = np.zeros(len(LABELS)), 0
    for _ in range(repeats):
        table = compare_labels(*simulated(rng, scale), **OPTIONS)
        counts += [row["change"] == "worse" for row in table]
        changed += any(row["change"] != "none" for row in table)
    return counts / repeats, changed / repeats


def test_chance_names_no_category():
    """Nothing changed: some label is called changed in at most 5 % of tables (a little less: it is exact)."""
    _, changed = named(np.ones(len(LABELS)), 120, np.random.default_rng(3))
    assert 0 < changed <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)


def test_the_one_that_got_worse_is_named():
    """One label of six is 2.2 times as frequent: it is found in most tables, each of the others in hardly any."""
    scale = np.ones(len(LABELS))
    scale[3] = 2.2
    counts, _ = named(scale, 25, np.random.default_rng(4))
    assert counts[3] > 0.8 and np.delete(counts, 3).max() < 0.06


def test_unlike_measurements_are_not_compared(sampler, scorer, prompts, policy):
    """Another scorer, sampling or set of prompts gives no table rather than a wrong one."""
    ours = evaluate(sampler(0.5), prompts, scorer, policy)
    (row,) = category_table(ours, evaluate(sampler(), prompts, scorer, policy), policy)
    assert (row["label"], row["share"], row["reference"], row["change"]) == ("toxicity", 0.5, 0.0, "worse")
    for other in (
        replace(ours, scorer=ScorerIdentity("other", "1", "x")),
        replace(ours, sampling=replace(ours.sampling, seed=9)),
        replace(ours, prompts=ours.prompts[::-1]),
    ):
        assert category_table(ours, other, policy) is None
