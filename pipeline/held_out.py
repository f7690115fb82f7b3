"""What a policy is worth on prompts that no stage trained on: its reward, and its answers about pictures."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from base_model.chat import messages_to_segments, reply_messages
from base_model.checkpoint import LanguageModel, structure_of
from base_model.generate import generate
from base_model.interleave import Example, interleave
from base_model.likelihood import held_out
from base_model.sampling import SamplingConfig
from reward.model import score
from safety.statistics import Interval, bootstrap_mean
from training.dataset import Row, convert_rows
from training.errors import BadInput
from training.progress import progress


class HeldOutRewards(NamedTuple):
    """Rewards of a policy's replies.

    Attributes:
        rewards: raw scores of the reward model.
        empty: share of replies without a word.
    """

    rewards: Float[np.ndarray, "prompts copies"]
    empty: float


def held_out_rewards(
    policy: LanguageModel,
    reward_model: LanguageModel,
    rows: Sequence[Row],
    *,
    label: str,
    max_prompt_length: int,
    max_new_tokens: int,
    temperature: float,
    copies: int = 4,
    seed: int = 0,
) -> HeldOutRewards:
    """Samples replies to each row's prompt and scores them; the same seed gives every policy the same luck.

    Prompts beyond `max_prompt_length` are left out, as PPO leaves them out: `prompts_that_fit` says which. A line on
    stderr says how many.
    """
    given, rows = len(rows), prompts_that_fit(policy, rows, max_prompt_length)
    if len(rows) < given:
        print(f"{label}: {given - len(rows)} of {given} prompts have more than max_prompt_length={max_prompt_length} "
              "tokens and are left out", file=sys.stderr)  # fmt: skip
    asked = convert_rows(rows, lambda row: _prompt(row.values))
    prompts = [_example(policy, messages, row.folder, "reply") for row, messages in zip(rows, asked, strict=True)]
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
    with progress(label, total=len(prompts)) as advance:
        replies = generate(policy, prompts, config, copies=copies, seed=seed, advance=advance)
    texts = [
        _example(reward_model, reply_messages(messages, reply), row.folder, "turn")
        for row, messages, own in zip(rows, asked, replies, strict=True)
        for reply in own
    ]
    empty = np.mean([not reply.strip() for own in replies for reply in own])
    return HeldOutRewards(score(reward_model, texts).reshape(len(rows), copies), float(empty))


def prompts_that_fit(policy: LanguageModel, rows: Sequence[Row], max_prompt_length: int) -> list[Row]:
    """The rows whose prompt has at most so many tokens.

    Raises:
        BadInput: when none has.
    """
    examples = convert_rows(rows, lambda row: _example(policy, _prompt(row.values), row.folder, "reply"))
    kept = [row for row, example in zip(rows, examples, strict=True) if len(example) <= max_prompt_length]
    if not kept:
        raise BadInput(f"none of {len(rows)} evaluation prompts fits in max_prompt_length ({max_prompt_length})")
    return kept


def reward_interval(rewards: Float[np.ndarray, "prompts copies"], *, seed: int = 0) -> Interval:
    """Mean reward with its 95 % cluster bootstrap interval over prompts."""
    means = rewards.mean(1)
    return bootstrap_mean(means, seed=seed, bounds=(float(means.min()) - 1, float(means.max()) + 1))


def picture_exact_match(model: LanguageModel, rows: Sequence[Row], *, dtype: DTypeLike = jnp.float32) -> float:
    """Share of questions about pictures whose greedy answer is exactly the right one, with matrix products in dtype."""
    examples = convert_rows(rows, lambda row: _example(model, row.values.get("messages"), row.folder, "turn", "last"))
    structure = structure_of(model.config, model.tokenizer, dtype=dtype)
    return held_out(structure, model.params, examples).exact_match


def _prompt(values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if not values.get("prompt"):
        raise BadInput(f"a row needs a `prompt`; this one has {', '.join(values) or 'nothing'}")
    prompt = values["prompt"]
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def _example(
    model: LanguageModel, messages: Any, folder: Path, ending: str, loss_on: str = "assistant"
) -> Example:
    segments = messages_to_segments(messages, model.tokenizer, folder=folder, loss_on=loss_on, ending=ending)
    return interleave(segments, model.tokenizer, model.config)
