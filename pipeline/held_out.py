"""What a policy is worth on prompts that no stage trained on: its reward, and its answers about pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from base_model.chat import messages_to_segments
from base_model.checkpoint import LanguageModel, structure_of
from base_model.generate import generate
from base_model.interleave import Example, interleave
from base_model.likelihood import held_out
from base_model.sampling import SamplingConfig
from reward.model import score
from safety.statistics import Interval, bootstrap_mean
from training.dataset import Row
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
    max_new_tokens: int,
    temperature: float,
    copies: int = 4,
    seed: int = 0,
) -> HeldOutRewards:
    """Samples replies to each row's prompt and scores them; the same seed gives every policy the same luck."""
    prompts = [_example(policy, row.values["prompt"], row.folder, "reply") for row in rows]
    config = SamplingConfig(max_new_tokens=max_new_tokens, temperature=temperature)
    with progress(label, total=len(prompts)) as advance:
        replies = generate(policy, prompts, config, copies=copies, seed=seed, advance=advance)
    texts = [
        _example(reward_model, [*row.values["prompt"], {"role": "assistant", "content": reply}], row.folder, "turn")
        for row, own in zip(rows, replies, strict=True)
        for reply in own
    ]
    empty = np.mean([not reply.strip() for own in replies for reply in own])
    return HeldOutRewards(score(reward_model, texts).reshape(len(rows), copies), float(empty))


def reward_interval(rewards: Float[np.ndarray, "prompts copies"], *, seed: int = 0) -> Interval:
    """Mean reward with its 95 % cluster bootstrap interval over prompts."""
    means = rewards.mean(1)
    return bootstrap_mean(means, seed=seed, bounds=(float(means.min()) - 1, float(means.max()) + 1))


def picture_exact_match(model: LanguageModel, rows: Sequence[Row]) -> float:
    """Share of questions about pictures whose greedy answer is exactly the right one."""
    examples = [
        interleave(
            messages_to_segments(row.values["messages"], model.tokenizer, folder=row.folder, loss_on="last", ending="turn"),
            model.tokenizer, model.config,
        )
        for row in rows
    ]  # fmt: skip
    return held_out(structure_of(model.config, model.tokenizer), model.params, examples, model.config).exact_match


def _example(model: LanguageModel, messages: Sequence, folder: Path, ending: str) -> Example:
    segments = messages_to_segments(messages, model.tokenizer, folder=folder, ending=ending)
    return interleave(segments, model.tokenizer, model.config)
