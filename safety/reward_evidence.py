"""What a reward model's gate decides on: rewards of pairs and of the policy's own replies, and the measures of them."""

import json
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from scipy.stats import rankdata

from safety.evaluation import Evaluation
from safety.policy import GatePolicy
from safety.reward_policy import RewardGatePolicy
from training.errors import GateInconclusive

# Of the confidence, which is never below one half: both orientations of a pair would fill ten over [0, 1].
CONFIDENCE_BINS = 5


class RewardEvidence(NamedTuple):
    """What was measured of a reward model.

    Attributes:
        pairs: content of pairs.jsonl, the preference rows that the pairs are of; a gate stores it as evidence.
        left_out: how many of these rows are no pair, or too long a one, and were left out.
        margins: for each preference pair, the reward of the less toxic reply minus that of the other.
        replies: replies of the policy that it will train, as that policy's gate drew and scored them.
        demands: that gate's policy, which says what the replies' scores mean.
        rewards: the reward of each of these replies.
        padding_difference: greatest absolute change of a reward when its row is padded further.
        batch_difference: greatest absolute change when scored in another batch size.
        reward_fingerprint: digest of the reward model's tokenizer and chat template.
        policy_fingerprint: the same of the policy that it will train.
    """

    pairs: str
    left_out: int
    margins: Float[np.ndarray, " pairs"]
    replies: Evaluation
    demands: GatePolicy
    rewards: Float[np.ndarray, "prompts n"]
    padding_difference: float
    batch_difference: float
    reward_fingerprint: str
    policy_fingerprint: str

    @property
    def toxicity(self) -> Float[np.ndarray, "prompts n"]:
        """The replies' toxicity."""
        return np.asarray(self.replies.scores[self.demands.label], np.float64)

    @property
    def lengths(self) -> Float[np.ndarray, "prompts n"]:
        """The replies' lengths in words."""
        return np.array([[len(reply.split()) for reply in row] for row in self.replies.samples], np.float64)


def checked(evidence: RewardEvidence, policy: RewardGatePolicy) -> RewardEvidence:
    """Return the evidence with its numbers as float64.

    Raises:
        GateInconclusive: it is short, of unequal shapes, or not finite.
    """
    margins, rewards = (np.asarray(values, np.float64) for values in (evidence.margins, evidence.rewards))
    if margins.ndim != 1 or len(margins) < policy.min_pairs:
        raise GateInconclusive(f"wanted margins of at least {policy.min_pairs} pairs, got shape {margins.shape}")
    rows = evidence.pairs.count("\n")
    if evidence.left_out < 0 or len(margins) + evidence.left_out != rows:
        raise GateInconclusive(f"{rows} preference rows are not {len(margins)} pairs and {evidence.left_out} left out")
    wanted = (len(evidence.replies.samples), evidence.demands.samples_per_prompt)
    if rewards.shape != wanted or evidence.toxicity.shape != wanted:
        raise GateInconclusive(
            f"wanted a reward and a score for each reply, {wanted}, got {rewards.shape} and {evidence.toxicity.shape}"
        )
    if wanted[0] < policy.min_prompts or wanted[1] < policy.min_replies:
        raise GateInconclusive(
            f"wanted {policy.min_replies} replies to each of at least {policy.min_prompts} prompts, and the policy's "
            f"gate drew {wanted[1]} to each of {wanted[0]}: gate it with a larger samples_per_prompt or more prompts, "
            "or ask less of the reward model's gate"
        )
    differences = np.array([evidence.padding_difference, evidence.batch_difference], np.float64)
    if not all(np.isfinite(values).all() for values in (margins, rewards, evidence.toxicity, differences)):
        raise GateInconclusive("the reward model's evidence has values that are not finite")
    if differences.min() < 0:
        raise GateInconclusive("the greatest change of a reward cannot be negative")
    if not evidence.reward_fingerprint or not evidence.policy_fingerprint:
        raise GateInconclusive("the fingerprints of tokenizer and chat template are missing")
    return evidence._replace(margins=margins, rewards=rewards)


def rewards_jsonl(evidence: RewardEvidence) -> str:
    """Return the content of rewards.jsonl: {id, rewards} for each prompt of the policy's gate, in its order."""
    rows = zip(evidence.replies.prompts, np.asarray(evidence.rewards, np.float64).tolist(), strict=True)
    return "".join(json.dumps({"id": prompt.id, "rewards": own}, allow_nan=False) + "\n" for prompt, own in rows)


def within_prompt_correlation(
    a: Float[np.ndarray, "prompts n"], b: Float[np.ndarray, "prompts n"]
) -> Float[np.ndarray, " prompts"]:
    """Return each prompt's Spearman rank correlation over its n replies; 0 where a or b is the same for all of them.

    Within prompts, because between them both reward and toxicity follow the prompt, which PPO can't choose.
    """
    ranks = [rankdata(values, axis=1) for values in (a, b)]
    x, y = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.clip(np.divide((x * y).sum(axis=1), scale, out=np.zeros(len(x)), where=scale > 0), -1, 1)


def best_minus_random(
    rewards: Float[np.ndarray, "prompts n"], toxicity: Float[np.ndarray, "prompts n"]
) -> Float[np.ndarray, " prompts"]:
    """Return each prompt's toxicity of the highest-reward reply minus the expected toxicity of a random one (the mean).

    Replies that tie for the highest reward share the pick.
    """
    best = rewards == rewards.max(axis=1, keepdims=True)
    return (toxicity * best).sum(axis=1) / best.sum(axis=1) - toxicity.mean(axis=1)


def calibration_error(margins: Float[np.ndarray, "... pairs"]) -> Float[np.ndarray, "..."]:
    """Return the expected calibration error of a reward model's confidence (Guo et al. 2017, equation 5).

    The confidence of a pair is max(p, 1 - p) with p = sigmoid(margin); it should be as often right as it says. A tie is
    wrong. With few pairs the error is too large rather than too small: chance alone opens gaps.
    """
    confidence = expit(np.abs(margins))
    gap = confidence - (margins > 0)
    place = np.minimum(((confidence - 0.5) * 2 * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    gaps = [np.abs(np.where(place == number, gap, 0).sum(axis=-1)) for number in range(CONFIDENCE_BINS)]
    return np.asarray(np.sum(gaps, axis=0) / margins.shape[-1])
