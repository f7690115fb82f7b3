"""The prompts of a run's gates: this project's own set, the run's and the policy's, none of which PPO may train on."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.config import DataConfig
from safety.gate import draw_prompts
from safety.policy import GatePolicy
from safety.prompt_media import content_of, key_of
from safety.prompt_set import PromptSet, load_prompts
from safety.prompts import GatePrompt, overlap
from training.dataset import Row, read_rows
from training.errors import BadInput


def load_sets(data: DataConfig) -> list[PromptSet]:
    """Loads the sets that a policy's two strata are drawn from.

    Raises:
        BadInput: one cannot be read.
    """
    return [load_prompts("own"), load_prompts(data.gate_prompts)]


def drawn_prompts(sets: Sequence[PromptSet], policy: GatePolicy) -> tuple[GatePrompt, ...]:
    """What a policy draws of the sets, and of its own further ones."""
    return draw_prompts([prompt for found in sets for prompt in found.prompts], policy)


def gate_sets(data: DataConfig, policy: GatePolicy, *, on_bad_row: str) -> list[PromptSet]:
    """Loads the sets that a policy draws its two strata from, whichever half of them it draws.

    Args:
        data: the run's files.
        policy: its further sets are not returned, but PPO may not train on them either.
        on_bad_row: of PPO's prompts, which PPO itself will stop at or skip.

    Raises:
        BadInput: a set cannot be read, or PPO trains on some of its prompts.
    """
    sets = load_sets(data)
    further = [load_prompts(demand.source, stratum=name) for name, demand in policy.sets.items()]
    every = [prompt for found in (*sets, *further) for prompt in found.prompts]
    require_disjoint(every, data.ppo_prompts, on_bad_row=on_bad_row)
    return sets


def require_disjoint(prompts: Sequence[GatePrompt], ppo_prompts: str, *, on_bad_row: str) -> None:
    """Refuses gate prompts that PPO trains on: a model would be measured on what it learned by heart.

    Raises:
        BadInput: naming one of them and how many there are.
    """
    rows = read_rows(ppo_prompts, on_bad_row=on_bad_row, warn=lambda words: None)
    keys = [text for row in rows for text in _texts(row.values.get("prompt"))]
    if any(prompt.content for prompt in prompts):  # else nobody needs to read all that PPO's prompts come with
        keys += [key for row in rows for key in _turns(row)]
    if shared := overlap(prompts, keys):
        raise BadInput(
            f"{len(shared)} gate prompts are among the prompts that PPO trains on ({ppo_prompts}), such as"
            f" {shared[0].text[:60]!r} ({shared[0].id}): a gate measures on what nobody trained on, so take them out"
        )


def _turns(row: Row) -> Iterator[str]:
    """The key of each message in parts, as a gate prompt of the same content would have; PPO itself is stricter."""
    prompt = row.values.get("prompt")
    for message in prompt if isinstance(prompt, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, list):
            with contextlib.suppress(BadInput):
                yield key_of(content_of(content, row.folder))


def _texts(prompt: Any) -> Iterator[str]:
    """Every text in a prompt, whether it is one, a message or a list of them; PPO itself is stricter."""
    if isinstance(prompt, str):
        yield prompt
    elif isinstance(prompt, Mapping):
        yield from _texts([prompt.get("content"), prompt.get("text")])
    elif isinstance(prompt, Sequence):
        for part in prompt:
            yield from _texts(part)
