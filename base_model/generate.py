"""Replies as text to prompts as segments, in batches that compile once for each width."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from base_model.batch import Batch, bucket, pad_left
from base_model.checkpoint import LanguageModel, structure_of
from base_model.interleave import Example, require_fits
from base_model.media import room
from base_model.sampling import SamplingConfig, Vocabulary, sample


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    """The ids that a sampler of this model must know."""
    return Vocabulary(model.tokenizer.end_of_turn, model.tokenizer.never_sampled)


def generate(
    model: LanguageModel,
    prompts: Sequence[Example],
    config: SamplingConfig,
    *,
    copies: int = 1,
    seed: int = 0,
    rows: int = 256,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[str]]:
    """Draws `copies` replies to each prompt.

    A reply follows from the seed, the prompt's number and the copy's alone: neither `rows` nor the other prompts change
    it beyond rounding.

    Args:
        model: a decoder.
        prompts: examples that end in an open assistant turn.
        config: how tokens are chosen.
        copies: replies a prompt.
        seed: of all replies.
        rows: replies drawn at the same time.
        advance: told how many prompts have been answered.

    Raises:
        BadInput: when a prompt and its reply do not fit the model's context.
    """
    structure, vocabulary = structure_of(model.config, model.tokenizer), vocabulary_of(model)
    longest = model.config.max_context - config.max_new_tokens
    width = lambda index: bucket(len(prompts[index]))  # noqa: E731
    order = sorted(range(len(prompts)), key=width)
    media = room([[prompt.media] for prompt in prompts])
    replies: list[list[str]] = [[] for _ in prompts]
    per_batch, seed_key = min(max(1, rows // copies), len(prompts)), jax.random.key(seed)
    first = 0
    while first < len(order):
        chosen = [i for i in order[first : first + per_batch] if width(i) == width(order[first])]
        first += len(chosen)
        padded = [require_fits(prompts[i], longest, "the model's context less max_new_tokens") for i in chosen]
        padded += padded[:1] * (per_batch - len(padded))
        batch: Batch = pad_left(padded, min(width(chosen[0]), longest), media)
        numbers = np.array(chosen + chosen[:1] * (per_batch - len(chosen)), np.uint32)
        keys = reply_keys(seed_key, numbers, copies)
        samples = sample(structure, model.params, batch, keys, vocabulary=vocabulary, config=config, copies=copies)
        tokens, mask = np.asarray(samples.tokens), np.asarray(samples.mask)
        for place, index in enumerate(chosen):
            own = range(place * copies, (place + 1) * copies)
            replies[index] = [model.tokenizer.decode(tokens[row][mask[row]].tolist()) for row in own]
        advance(len(chosen))
    return replies


def reply_keys(key: jax.Array, numbers: np.ndarray, copies: int) -> jax.Array:
    """One key for each copy of each numbered prompt, the copies of a prompt beside one another."""
    of_prompt = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(numbers))
    of_copy = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(of_prompt, jnp.arange(copies))
    return of_copy.reshape(-1)
