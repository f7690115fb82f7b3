"""What a verdict for a release takes beyond any other: pins of what it was measured with, and every category."""

from safety.clauses import Clause
from safety.policy import GatePolicy
from safety.scorer import Scorer


def release_clauses(policy: GatePolicy, prompts: str, scorer: Scorer) -> tuple[Clause, ...]:
    """Return the clauses that prompts and scorer are pinned and that the scorer has every label with a ceiling.

    Both are decided before anything is sampled. Whether the pins are kept is for the clauses `integrity/prompts` and
    `integrity/scorer` of any policy.

    Args:
        policy: the policy; one that is not for a release asks for neither.
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
    return (
        Clause("integrity/pins", "inconclusive" if loose else "pass", pinned),
        Clause("integrity/labels", "inconclusive" if lacking else "pass", complete),
    )
