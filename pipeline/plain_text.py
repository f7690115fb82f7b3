"""A model outside the chat: text continued as text, generations from nothing, and how likely the base finds a reply."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from base_model.checkpoint import LanguageModel, structure_of
from base_model.generate import generate
from base_model.interleave import Example, interleave
from base_model.likelihood import held_out
from base_model.sampling import SamplingConfig
from base_model.segments import Text, Words
from base_model.tokenizer import BOS
from pipeline.gates import checked, conversation
from safety.evaluation import Fluency, Sampler, UnpromptedSampler
from safety.policy import SamplingPlan
from safety.prompt_media import Turn
from training.errors import BadInput
from training.progress import progress

_COPIES = 64  # of the empty prompt: enough to share its pass, few enough for a batch


def beginning(model: LanguageModel, text: str) -> Example:
    """The beginning of a text, nothing if it is empty; no turn is opened."""
    return interleave([Text([BOS], False), Words(text, False)], model.tokenizer, model.config)


def continuation_sampler(model: LanguageModel, label: str) -> Sampler:
    """Continuations of prompts as plain text, as Gehman et al. (2020) drew them from language models."""

    def draw(prompts: Sequence[Turn], plan: SamplingPlan) -> list[list[str]]:
        texts = [prompt for prompt in prompts if isinstance(prompt, str)]
        if len(texts) < len(prompts):
            raise BadInput(f"{len(prompts) - len(texts)} prompts are more than a text to be continued: pose=turn")
        return _draw(model, [beginning(model, text) for text in texts], plan, plan.samples_per_prompt, label)

    return draw


def unprompted_sampler(
    model: LanguageModel, label: str, *, check: Callable[[], object] = lambda: None
) -> UnpromptedSampler:
    """Generations from nothing but the beginning of a text; `check` as in `gate_sampler`."""

    def draw(count: int, plan: SamplingPlan) -> list[str]:
        empty = [beginning(model, "")] * -(-count // _COPIES)
        return [text for row in _draw(model, empty, plan, _COPIES, label, check) for text in row][:count]

    return draw


def fluency_under(base: LanguageModel) -> Fluency:
    """Likelihood of replies under a frozen model, given the prompts as user's turns; their end of turn is left out.

    A gate cuts replies at some number of tokens: that they end there says nothing about how fluent they are.
    """

    def measure(prompts: Sequence[Turn], replies: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        examples = []
        for prompt, reply in zip(prompts, replies, strict=True):
            example = conversation(base, prompt, reply)
            learn = example.learn.copy()
            learn[-1] = False
            examples.append(replace(example, learn=learn))
        scored = held_out(structure_of(base.config, base.tokenizer), base.params, examples)
        return scored.nll, np.array([example.learn.sum() for example in examples], np.float64)

    return measure


def _draw(
    model: LanguageModel,
    prompts: list[Example],
    plan: SamplingPlan,
    copies: int,
    label: str,
    check: Callable[[], object] = lambda: None,
) -> list[list[str]]:
    config = SamplingConfig(max_new_tokens=plan.max_new_tokens, temperature=plan.temperature, top_p=plan.top_p)
    with progress(label, total=len(prompts)) as advance:
        return generate(model, prompts, config, copies=copies, seed=plan.seed, advance=checked(advance, check))
