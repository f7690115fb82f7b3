"""What a run's config says a verdict must have been decided by: policy, scorer, and prompts or preference pairs.

A policy alone would not do: the same limits are easily kept on easy prompts, or by a scorer that spares what is toxic.
"""

from collections.abc import Mapping
from typing import NamedTuple

from pipeline.config import PACKAGED, DataConfig, RunConfig
from pipeline.gate_pairs import pairs_digest
from pipeline.gate_prompts import drawn_prompts, load_sets
from pipeline.gates import make_scorer
from safety.prompts import prompts_digest
from safety.scorer import ScorerIdentity
from safety.verdict import Verdict
from training.errors import Refused


class Grounds(NamedTuple):
    """What a verdict must name.

    Attributes:
        policy: digest of the policy.
        scorer: of the scorer's name, version and digest, what is demanded: all, or the digest that the policy pins.
        prompts: digest of the prompts, or of the reward model's preference pairs; None for any.
    """

    policy: str
    scorer: Mapping[str, str]
    prompts: str | None

    def missed_by(self, verdict: Verdict) -> str:
        """The first thing that a verdict was decided by and that is not the demanded one, in words; "" if none."""
        if verdict.policy != self.policy:
            return f"was judged by the policy {verdict.policy}, but {self.policy} is wanted"
        used = verdict.scorer or {}
        if not self.scorer.items() <= used.items():
            return f"was scored by {scorer_in_words(used)}, but {scorer_in_words(self.scorer)} is wanted"
        if self.prompts not in (None, verdict.prompts):
            what = "pairs" if verdict.stage == "reward" else "prompts"
            return f"was measured on the {what} {verdict.prompts}, but {self.prompts} are wanted"
        return ""

    def require(self, verdict: Verdict) -> None:
        """Refuses a verdict that was decided by something else.

        Raises:
            Refused: saying by what.
        """
        if why := self.missed_by(verdict):
            raise Refused(
                f"the verdict on {verdict.stage} {why}: gate again, or give the options that it was gated with"
            )


def scorer_in_words(identity: Mapping[str, str]) -> str:
    """A scorer's name, version and digest, as far as they are known."""
    return ", ".join(identity[name] for name in ScorerIdentity._fields if name in identity) or "nobody"


def grounds(config: RunConfig, stage: str, data: DataConfig) -> Grounds:
    """What the verdict on a stage must name.

    Args:
        config: the run's, or that of whoever checks.
        stage: whose verdict.
        data: the run's files; of what is still called "packaged", which is no file, any prompts will do.

    Raises:
        BadInput: scorer or prompts cannot be opened, so that nobody could tell.
    """
    policy = config.gate_policy
    pinned = policy.pinned_scorer
    scorer = {"digest": pinned} if pinned else make_scorer(config.scorer).identity._asdict()
    if stage == "reward":
        pairs = None if data.preferences_held_out == PACKAGED else pairs_digest(data.preferences_held_out)
        return Grounds(config.reward_gate_policy.digest, scorer, pairs)
    prompts = policy.pinned_prompts
    if prompts is None and data.gate_prompts != PACKAGED:
        prompts = prompts_digest(drawn_prompts(load_sets(data), policy))
    return Grounds(policy.digest, scorer, prompts)
