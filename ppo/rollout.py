"""A rollout: replies sampled by the policy, with everything that the update needs to know about them, frozen."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from base_model.batch import Batch
from base_model.image_codes import drawn_so_far
from base_model.likelihood import over_logits
from base_model.sampling import Samples, Vocabulary, permitted
from base_model.tokenizer import PAD
from ppo.advantages import generalised_advantages, whiten_advantages
from ppo.config import PPOConfig
from ppo.kl import mean_sequence_kl, token_kl
from ppo.logprobs import token_entropy, token_logprobs
from ppo.rewards import (
    Responses,
    normalise_scores,
    penalise_missing_eos,
    replace_missing_eos,
    token_rewards,
    truncate_at_eos,
    whiten_rewards,
)
from reward.model import segment_scores, token_values
from training.masked import masked_mean


class Models(NamedTuple):
    """Static structure of the decoder that policy, critic, reference and reward model share, and its vocabulary."""

    structure: nnx.GraphDef
    vocabulary: Vocabulary


class ScoreStatistics(NamedTuple):
    """Mean and standard deviation of the reward model on the reference's replies; 0 and 1 leave scores as they are."""

    mean: Float[Array, ""]
    std: Float[Array, ""]


class Rollout(NamedTuple):
    """Episodes, rows first, R response positions.

    Attributes:
        sequences: prompts (left-padded, P wide) and replies behind them.
        mask: true on the reply's tokens, its end of turn included.
        log_probs: of the policy that sampled them, recomputed by the trainer's own forward pass.
        values: of the critic, before each token.
        advantages: whitened over the rollout.
        returns: targets of the critic.
    """

    sequences: Batch
    mask: Bool[Array, "B R"]
    log_probs: Float[Array, "B R"]
    values: Float[Array, "B R"]
    advantages: Float[Array, "B R"]
    returns: Float[Array, "B R"]


def responses_of(samples: Samples, vocabulary: Vocabulary) -> Responses:
    """Replies cut at their end by their tokens alone: where a sampler stops drawing need not be known here."""
    return truncate_at_eos(samples.tokens, eos_id=vocabulary.ends, pad_id=PAD)


def join(prompts: Batch, responses: Responses) -> Batch:
    """Prompts and their replies as rows of P + R tokens; positions go on where the prompt's end."""
    segments = jnp.concatenate([prompts.segments, responses.mask.astype(jnp.int32)], 1)
    return prompts._replace(
        tokens=jnp.concatenate([prompts.tokens, responses.tokens], 1),
        segments=segments,
        positions=jnp.maximum(jnp.cumsum(segments, 1) - 1, 0),
        learn=jnp.concatenate([jnp.zeros_like(prompts.learn), responses.mask], 1),
    )


def response_log_probs(
    models: Models, params: Any, sequences: Batch, *, length: int, temperature: float
) -> tuple[Float[Array, "B R"], Float[Array, "B R"]]:
    """Log-probability of each of the last `length` tokens, and the entropy of the distribution it was drawn from.

    The logits that predict the token at index i stand at index i - 1. What the sampler does not draw at a place has
    probability 0 here too, or sampled and scored distributions would differ.
    """
    decoder = nnx.merge(models.structure, params)
    hidden, _ = decoder(sequences.tokens, sequences.positions, sequences.segments, sequences.media)

    def score(logits: Array, places: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        tokens, drawn, left = places
        logits = permitted(logits, models.vocabulary, drawn, left)
        return token_logprobs(logits, tokens, temperature=temperature), token_entropy(logits, temperature=temperature)

    tokens = jnp.asarray(sequences.tokens)
    images, before, replies = models.vocabulary.images, slice(-length - 1, -1), tokens[:, -length:]
    drawn = jnp.zeros_like(replies) if images is None else drawn_so_far(tokens, images)[:, before]
    left = jnp.broadcast_to(jnp.arange(length, 0, -1), replies.shape)
    return over_logits(score, decoder, hidden[:, before], (replies, drawn, left))


def response_values(models: Models, params: Any, sequences: Batch, *, length: int) -> Float[Array, "B R"]:
    """The critic's value of the state before each of the last `length` tokens."""
    return token_values(models.structure, params, sequences)[:, -length - 1 : -1]


def reward_scores(models: Models, params: Any, sequences: Batch) -> Float[Array, " B"]:
    """The reward model's score at the last token of each row."""
    return segment_scores(token_values(models.structure, params, sequences), jnp.asarray(sequences.segments), 1)[:, 0]


@partial(jax.jit, static_argnames=("models", "config"))
def assess(
    models: Models,
    policy: Any,
    critic: Any,
    reference: Any,
    reward_model: Any,
    prompts: Batch,
    samples: Samples,
    statistics: ScoreStatistics,
    kl_coef: Float[Array, ""],
    *,
    config: PPOConfig,
) -> tuple[Rollout, dict[str, Float[Array, ""]]]:
    """Scores replies and turns the scores into advantages and returns.

    Args:
        models: structure and vocabulary.
        policy: parameters that sampled the replies.
        critic: parameters of the critic.
        reference: parameters of the frozen SFT model.
        reward_model: parameters of the frozen reward model.
        prompts: left-padded.
        samples: the replies.
        statistics: for normalising scores.
        kl_coef: beta.
        config: options.

    Returns:
        The rollout, and its metrics under the mask.
    """
    responses = responses_of(samples, models.vocabulary)
    sequences, mask, length = join(prompts, responses), responses.mask, config.response_length
    log_probs, entropy = response_log_probs(models, policy, sequences, length=length, temperature=config.temperature)
    ref_log_probs, _ = response_log_probs(models, reference, sequences, length=length, temperature=config.temperature)
    values = response_values(models, critic, sequences, length=length)
    raw_scores = reward_scores(models, reward_model, sequences)

    scores = normalise_scores(raw_scores, mean=statistics.mean, std=statistics.std)
    if config.missing_eos_score is not None:
        scores = replace_missing_eos(scores, responses.has_eos, score=config.missing_eos_score)
    elif config.missing_eos_penalty is not None:
        scores = penalise_missing_eos(scores, responses.has_eos, penalty=config.missing_eos_penalty)
    kl = token_kl(log_probs, ref_log_probs, estimator=config.kl_estimator)
    clip = (-config.score_clip, config.score_clip) if config.score_clip else None
    rewards = token_rewards(scores, kl, mask, kl_coef=kl_coef, score_clip=clip)
    if config.whiten_rewards:
        rewards = whiten_rewards(rewards, mask)
    estimate = generalised_advantages(rewards, values, mask, gamma=config.gamma, lam=config.lam)
    rollout = Rollout(
        sequences, mask, log_probs, values, whiten_advantages(estimate.advantages, mask), estimate.returns
    )
    metrics = {
        "score": raw_scores.mean(),
        "score_std": raw_scores.std(),
        "normalised_score": scores.mean(),
        "kl": mean_sequence_kl(token_kl(log_probs, ref_log_probs, estimator="k1"), mask),
        "kl_coef": kl_coef,
        "entropy": masked_mean(entropy, mask),
        "eos_rate": responses.has_eos.mean(),
        "response_length": responses.lengths.mean(),
        # How far the sampler's own log-probabilities are from the trainer's: more than rounding means that what was
        # sampled is not what is being updated.
        "sampler_mismatch": jnp.where(mask, jnp.abs(samples.log_probs - log_probs), 0).max(),
    }
    return rollout, metrics
