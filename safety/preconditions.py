"""What must hold before anything is sampled: enough prompts for what the policy demands, and no second draw."""

from collections.abc import Collection, Mapping, Sequence

from safety.clauses import Clause
from safety.policy import GatePolicy
from safety.power import Need, margin_resolved, prompts_for_margin, prompts_without_hits

SHARES = ("toxicity_probability", "toxic_fraction")


def needs(policy: GatePolicy, labels: Sequence[str] = ()) -> dict[str, list[Need]]:
    """Return what each limit of a policy takes, by the group of prompts that it is about.

    A margin takes the prompts with which a checkpoint that is no worse passes with the policy's power. A ceiling on a
    share takes those whose bound could keep it at all, if not one prompt had a hit.

    Args:
        policy: the policy.
        labels: those of the scorer; a category that it lacks takes nothing.
    """
    found: dict[str, list[Need]] = {"all": []}
    forms = {f"parity/{form}": limits for form, limits in (policy.parity.demanded if policy.parity else {}).items()}
    for name, margins in {"parent": policy.parent_margin, "base": policy.base_margin, **forms}.items():
        for metric, margin in margins.given.items():
            sd = policy.planned_sd.given[metric]
            prompts = prompts_for_margin(margin, sd=sd, power=policy.power, alpha=policy.alpha)
            found["all"].append(Need(f"{name}/{metric}", margin, prompts))
    ceilings: dict[str, Mapping[str, float]] = {group: limits.given for group, limits in policy.ceilings.items()}
    ceilings |= {name: part.ceilings.given for name, part in policy.sets.items()}
    for group, limits in ceilings.items():
        found.setdefault(group, []).extend(
            Need(f"{group}/{metric}", limits[metric], prompts_without_hits(limits[metric], alpha=policy.alpha))
            for metric in SHARES
            if metric in limits
        )
    if policy.drawings is not None:
        unsafe = policy.drawings.unsafe
        found["all"].append(Need("drawings/unsafe", unsafe, prompts_without_hits(unsafe, alpha=policy.alpha)))
    if policy.unprompted is not None:
        share = policy.unprompted.toxic_fraction
        found["unprompted"] = [
            Need("unprompted/toxic_fraction", share, prompts_without_hits(share, alpha=policy.alpha))
        ]
    for label, ceiling in policy.category_ceilings.items():
        if label in labels:
            found["all"].append(Need(f"category/{label}", ceiling, prompts_without_hits(ceiling, alpha=policy.alpha)))
    return found


def size_clause(policy: GatePolicy, counts: Mapping[str, int], labels: Sequence[str]) -> Clause:
    """Return the clause that the prompts are enough; without it the gate decides nothing.

    Args:
        policy: the policy.
        counts: prompts by group, and "unprompted" generations.
        labels: those of the scorer.
    """
    wanted = [(need, group) for group, needed in needs(policy, labels).items() for need in needed]
    short = [(need, group) for need, group in wanted if counts.get(group, 0) < need.prompts]
    if not short:
        most = max(need.prompts for need, _ in wanted)
        name = next(need.name for need, _ in wanted if need.prompts == most)
        reason = f"enough prompts: of all limits {name} takes the most, {most}"
        return Clause("integrity/size", "pass", reason, float(counts["all"]), None, float(most))
    need, group = max(short, key=lambda pair: pair[0].prompts / max(1, counts.get(pair[1], 0)))
    have, metric = counts.get(group, 0), need.name.rpartition("/")[2]
    basis, instead = f"to keep it {100 * (1 - policy.alpha):g} % surely without a single hit", ""
    if need.name.startswith(("parent/", "base/", "parity/")):
        sd = policy.planned_sd.given[metric]
        basis = f"at {100 * policy.power:g} % power and a standard deviation of {sd:g}"
        least = margin_resolved(max(1, have), sd=sd, power=policy.power, alpha=policy.alpha)
        instead = f", or a margin of {least:.3g}"
    of = {"all": "prompts", "unprompted": "generations"}.get(group, f"{group} prompts")
    reason = (
        f"too few prompts: the limit {need.limit:g} of {need.name} needs {need.prompts} {of} {basis}, and there are"
        f" {have}; give {need.prompts - have} more{instead}"
    )
    return Clause("integrity/size", "inconclusive", reason, float(have), None, float(need.prompts))


def seed_clause(policy: GatePolicy, prompts: str, tried: Collection[tuple[str | None, int]]) -> Clause:
    """Return the clause that a checkpoint is not judged again and again until a seed is lucky, or a choice of prompts.

    Args:
        policy: the policy.
        prompts: digest of the prompts that are to be posed.
        tried: what exactly these bytes were sampled and judged with before: the prompts' digest and the seed. Where a
            record does not know the prompts, they count as these.
    """
    draws = {(policy.seed, prompts), *((seed, known or prompts) for known, seed in tried)}
    listed = ", ".join(f"seed {seed} on the prompts {known[:19]}" for seed, known in sorted(draws))
    if policy.max_seeds is None or len(draws) <= policy.max_seeds:
        allowed = "any number" if policy.max_seeds is None else policy.max_seeds
        return Clause("integrity/seed", "pass", f"these bytes were judged with {listed}; allowed: {allowed}")
    reason = (
        f"these bytes were judged before: with this it is {listed}, and max_seeds is {policy.max_seeds}; another seed,"
        " or other prompts, would look for luck, so go back to the first, or say more in the policy"
    )
    return Clause("integrity/seed", "inconclusive", reason, float(len(draws)), None, float(policy.max_seeds))
