"""From the reward model's score of a response to a reward for each of its tokens.

The order matters: truncate, score the truncated text, normalise the score, account for a missing EOS, clip, subtract
the divergence. Normalising after the constant for a missing EOS would move that constant; clipping after the divergence
would clip the divergence.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from training.masked import masked_whiten, upcast

ScorePosition = Literal["last", "after_last"]


class Responses(NamedTuple):
    """Responses cut at their end.

    Attributes:
      tokens: [B, T] ids, pad_id after the end.
      mask: [B, T] True on the response, its EOS included.
      lengths: [B] number of tokens kept.
      has_eos: [B] whether the response ended by itself.
    """

    tokens: Int[Array, "B T"]
    mask: Bool[Array, "B T"]
    lengths: Int[Array, "B"]
    has_eos: Bool[Array, "B"]


def truncate_at_eos(tokens: Int[Array, "B T"], *, eos_id: int | tuple[int, ...], pad_id: int) -> Responses:
    """Ends each response at its first EOS, which stays, or before its first padding.

    Args:
      tokens: sampled ids, right-padded or not.
      eos_id: id that ends a response, or several.
      pad_id: id of padding. Wherever it stands it ends the response: no later stage could tell it from padding.

    Returns:
      The truncated responses.

    Raises:
      ValueError: padding and EOS share an id, so that the end of a response could not be told from its padding.
    """
    ends = (eos_id,) if isinstance(eos_id, int) else eos_id
    if pad_id in ends:
        raise ValueError(f"pad_id must differ from eos_id, got {pad_id} for both; give padding an id of its own")
    is_eos = jnp.isin(tokens, jnp.array(ends))
    after_eos = jnp.cumsum(is_eos, axis=1) - is_eos > 0
    mask = ~after_eos & (jnp.cumsum(tokens == pad_id, axis=1) == 0)
    return Responses(
        tokens=jnp.where(mask, tokens, pad_id),
        mask=mask,
        lengths=jnp.sum(mask, axis=1),
        has_eos=jnp.any(is_eos & mask, axis=1),
    )


def score_index(mask: Bool[Array, "B T"], *, score_position: ScorePosition = "last") -> Int[Array, "B"]:
    """Index of the token that receives the score.

    Args:
      mask: True on response tokens; there may be holes.
      score_position: "last" is the last response token, as in OpenAI's code. "after_last" is one later unless the row
        is full, as in TRL from 0.12; it exists to replay recorded TRL runs.

    Returns:
      One index a row; -1 (nowhere) for "last" of a row without response tokens.

    Raises:
      ValueError: no such position.
    """
    last = jnp.max(jnp.where(mask, jnp.arange(mask.shape[1]), -1), axis=1)
    match score_position:
        case "last":
            return last
        case "after_last":
            return jnp.minimum(last + 1, mask.shape[1] - 1)
    raise ValueError(f"score_position must be 'last' or 'after_last', got {score_position!r}")


def normalise_scores(
    scores: Float[Array, "B"], *, mean: Float[Array, ""] | float, std: Float[Array, ""] | float | None = None
) -> Float[Array, "B"]:
    """(score - mean) / std, with the statistics of the reward model on reference responses.

    A reward model is trained on differences and has an arbitrary offset; left in, it shifts every value target, and the
    coefficient of the divergence means something else for each model.

    Args:
      scores: of the reward model.
      mean: its mean score on reference responses.
      std: its standard deviation there, or None to leave the scale.

    Returns:
      Normalised scores in float32 or wider.

    Raises:
      ValueError: std is a number that is not positive (an array is the caller's to keep positive).
    """
    if isinstance(std, (int, float)) and std <= 0:
        raise ValueError(f"std must be positive, got {std}; pass None to leave the scale of the scores")
    centred = upcast(scores) - mean
    return centred if std is None else centred / std


def replace_missing_eos(
    scores: Float[Array, "B"], has_eos: Bool[Array, "B"], *, score: float = -1.0
) -> Float[Array, "B"]:
    """Gives every response that did not end the same score, whatever it says.

    The "EOS trick" of Huang et al., "The N+ Implementation Details of RLHF with PPO" (2024). `penalise_missing_eos` is
    the alternative.

    Args:
      scores: normalised scores.
      has_eos: whether the response ended by itself.
      score: the constant.

    Returns:
      Scores in float32 or wider.
    """
    return jnp.where(has_eos, upcast(scores), score)


def penalise_missing_eos(scores: Float[Array, "B"], has_eos: Bool[Array, "B"], *, penalty: float) -> Float[Array, "B"]:
    """Subtracts a penalty from the score of each response that did not end.

    Args:
      scores: normalised scores.
      has_eos: whether the response ended by itself.
      penalty: positive, in the unit of the scores.

    Returns:
      Scores in float32 or wider.
    """
    return jnp.where(has_eos, upcast(scores), upcast(scores) - penalty)


def token_rewards(
    scores: Float[Array, "B"],
    kl: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    kl_coef: Float[Array, ""] | float,
    score_clip: tuple[float, float] | None = None,
    score_position: ScorePosition = "last",
) -> Float[Array, "B T"]:
    """Reward of each token: the divergence's price everywhere, the score on the last.

    r_t = -beta * kl_t + [t = last] * clip(score);  Ziegler et al. (2019), equation 2.

    Args:
      scores: one for each response.
      kl: estimates a token, of `kl.token_kl`, usually k1.
      mask: True on response tokens.
      kl_coef: beta.
      score_clip: lowest and highest score, or None. The divergence is not clipped.
      score_position: see `score_index`.

    Returns:
      Rewards in float32 or wider, without gradient, 0 on padding. A row without response tokens gets no score.
    """
    scores = upcast(scores)
    if score_clip is not None:
        scores = jnp.clip(scores, *score_clip)
    index = score_index(mask, score_position=score_position)
    scored = jnp.arange(mask.shape[1]) == index[:, None]
    rewards = jnp.where(mask, -kl_coef * upcast(kl), 0) + jnp.where(scored, scores[:, None], 0)
    return jax.lax.stop_gradient(rewards)


def whiten_rewards(rewards: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B T"]:
    """Scales rewards to variance 1 over the response tokens of the rollout and leaves their mean.

    Shifting the mean would pay or charge for every further token, and so for length.

    Args:
      rewards: of `token_rewards`.
      mask: True on response tokens.

    Returns:
      Rewards, 0 on padding.
    """
    return masked_whiten(rewards, mask, shift_mean=False)
