"""What a gate needs of a model: a sampler of replies to its prompts, and a reward model's evidence."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from base_model.chat import messages_to_segments
from base_model.checkpoint import LanguageModel
from base_model.generate import generate
from base_model.interleave import Example, interleave
from base_model.sampling import SamplingConfig
from pipeline.gate_pairs import pairs_jsonl
from reward.data import Pair
from reward.model import score
from safety.evaluation import Evaluation, Sampler
from safety.policy import GatePolicy, SamplingPlan
from safety.prompt_media import Turn
from safety.prompts import GatePrompt
from safety.reward_evidence import RewardEvidence
from safety.scorer import Scorer
from safety.scorers import open_scorer
from training.dataset import Row
from training.errors import BadInput
from training.progress import progress


@functools.cache
def make_scorer(name: str) -> Scorer:
    """The scorer that a config names, opened once for all gates of a command."""
    return open_scorer(name)


def conversation(model: LanguageModel, user: Turn, reply: str | None = None, *, folder: Path = Path()) -> Example:
    """A user's turn with the reply to it, or with an open assistant turn; paths of media start at the folder."""
    messages: list[dict[str, Turn]] = [{"role": "user", "content": user}]
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    ending = "turn" if reply is not None else "reply"
    return interleave(
        messages_to_segments(messages, model.tokenizer, folder=folder, ending=ending), model.tokenizer, model.config
    )


def gate_sampler(model: LanguageModel, label: str, *, check: Callable[[], object] = lambda: None) -> Sampler:
    """Replies of a model to prompts posed as the user's turn; the same seed draws the same replies.

    Args:
        model: who replies.
        label: on the progress bar.
        check: called after each prompt; what it raises ends the sampling.
    """

    def draw(prompts: Sequence[Turn], plan: SamplingPlan) -> list[list[str]]:
        return draw_replies(model, prompts, plan, label, check=check)

    return draw


def require_readable(model: LanguageModel, prompts: Sequence[GatePrompt]) -> None:
    """Refuses prompts with a picture, a sound or a clip that a model cannot take in, before anything is sampled.

    Raises:
        BadInput: the model has no encoder for it, or it cannot be decoded; naming the prompt.
    """
    for prompt in prompts:
        if prompt.content:
            try:
                conversation(model, prompt.turn)
            except BadInput as error:
                raise BadInput(f"the gate prompt {prompt.id} cannot be posed: {error}") from error


def draw_replies(
    model: LanguageModel,
    turns: Sequence[Turn],
    plan: SamplingPlan,
    label: str,
    *,
    folder: Path = Path(),
    first: int = 0,
    check: Callable[[], object] = lambda: None,
) -> list[list[str]]:
    """Replies to each user's turn as a plan says.

    Args:
        model: who replies.
        turns: what to reply to.
        plan: how many replies, and how they are drawn.
        label: said beside the progress.
        folder: where paths of media start.
        first: number of the first turn: a gate's prompt by itself gets the replies that it got among the others.
        check: as in `gate_sampler`.
    """
    config = SamplingConfig(max_new_tokens=plan.max_new_tokens, temperature=plan.temperature, top_p=plan.top_p)
    with progress(label, total=len(turns)) as advance:
        return generate(
            model, [conversation(model, turn, folder=folder) for turn in turns], config,
            copies=plan.samples_per_prompt, seed=plan.seed, first=first, advance=checked(advance, check),
        )  # fmt: skip


def checked(advance: Callable[[int], None], check: Callable[[], object]) -> Callable[[int], None]:
    """Tells the progress bar what is done, then looks whether to go on."""

    def step(count: int) -> None:
        advance(count)
        check()

    return step


def reward_evidence(
    model: LanguageModel,
    policy: LanguageModel,
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    replies: Evaluation,
    demands: GatePolicy,
) -> RewardEvidence:
    """Measures a reward model for its gate.

    Args:
        model: the reward model.
        policy: the SFT model that it will train.
        rows: held-out rows whose chosen reply is the less toxic one.
        pairs: those of them that are usable.
        replies: the policy's replies, as its gate drew and scored them.
        demands: that gate's policy.
    """
    texts = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    scores = score(model, texts)
    drawn = [
        conversation(model, prompt.turn, reply)
        for prompt, samples in zip(replies.prompts, replies.samples, strict=True)
        for reply in samples
    ]
    # Short texts, so that they share a width alone and are padded to several times their length beside the longest one.
    some = sorted(texts, key=len)[:32]
    alone = score(model, some, batch_size=1, packed=False)
    wide = score(model, [*some, max([*texts, *drawn], key=len)])[:-1]
    return RewardEvidence(
        pairs=pairs_jsonl(rows),
        left_out=len(rows) - len(pairs),
        margins=scores[: len(pairs)] - scores[len(pairs) :],
        replies=replies,
        demands=demands,
        rewards=score(model, drawn).reshape(len(replies.samples), -1),
        padding_difference=float(np.abs(wide - alone).max()),
        batch_difference=float(np.abs(score(model, some) - alone).max()),
        reward_fingerprint=model.fingerprint,
        policy_fingerprint=policy.fingerprint,
    )
