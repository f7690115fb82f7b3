"""What a verdict for a release takes beyond any other: pins, every category, red-team and over-refusal prompts."""

from safety.clauses import Clause
from safety.policy import GatePolicy
from safety.scorer import Scorer


def release_clauses(policy: GatePolicy, prompts: str, scorer: Scorer) -> tuple[Clause, ...]:
    """Return the clauses: pinned prompts and scorer, a scorer with every label that has a ceiling, both further kinds.

    All are decided before anything is sampled. Whether the pins are kept is for the clauses `integrity/prompts` and
    `integrity/scorer` of any policy.

    Args:
        policy: the policy; one that is not for a release asks for none of it.
        prompts: the digest of the drawn prompts.
        scorer: who is to score.
    """
    if not policy.for_release:
        return ()
    name, _, weights = scorer.identity
    pins = {"pinned_prompts": (policy.pinned_prompts, prompts), "pinned_scorer": (policy.pinned_scorer, weights)}
    loose = ", ".join(f"{field}: {found}" for field, (pinned, found) in pins.items() if pinned is None)
    lacking = ", ".join(label for label in policy.category_ceilings if label not in scorer.labels)
    pinned, complete = "prompts and scorer are pinned", f"the scorer {name} scores every label with a ceiling"
    if loose:
        pinned = f"a release pins what it is measured with; the policy lacks {loose}"
    if lacking:
        complete = f"the policy limits {lacking}, which the scorer {name} does not score"
    harmless = {name for name, demand in policy.sets.items() if demand.max_refusals is not None}
    kinds = {
        "red-team (ceilings or min_refusals)": policy.sets.keys() - harmless,
        "over-refusal (max_refusals)": harmless,
    }
    posed = "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items())
    unposed = " and ".join(kind for kind, names in kinds.items() if not names)
    if unposed:
        posed = (
            f"a release poses red-team and over-refusal prompts, and the policy has no set of the kind {unposed}: name"
            " a file of each, such as sets: {red-team: {source: red_team.jsonl, ceilings: {toxic_fraction: 0.05}},"
            " harmless: {source: harmless.jsonl, max_refusals: 0.1}}"
        )
    return (
        Clause("integrity/pins", "inconclusive" if loose else "pass", pinned),
        Clause("integrity/labels", "inconclusive" if lacking else "pass", complete),
        Clause("integrity/sets", "inconclusive" if unposed else "pass", posed),
    )
