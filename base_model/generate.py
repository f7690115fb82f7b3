"""Replies to prompts, those of one width together, for which everything is compiled once."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from base_model.batch import bucket, cuts_of, pad_left, require_media
from base_model.checkpoint import LanguageModel, structure_of
from base_model.interleave import Example, require_fits
from base_model.media import room
from base_model.pool import Waiting, draw_all
from base_model.sampling import SamplingConfig, Vocabulary


def vocabulary_of(model: LanguageModel) -> Vocabulary:
    """The ids that a sampler of this model must know."""
    tokenizer = model.tokenizer
    return Vocabulary(tokenizer.end_of_turn, tokenizer.never_sampled, tokenizer.image_codes, tokenizer.stops)


def generate(
    model: LanguageModel,
    prompts: Sequence[Example],
    config: SamplingConfig,
    *,
    copies: int = 1,
    seed: int = 0,
    first: int = 0,
    rows: int = 256,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[str]]:
    """Draws `copies` replies to each prompt: their text. The arguments are those of reply_ids."""
    replies = reply_ids(model, prompts, config, copies=copies, seed=seed, first=first, rows=rows, advance=advance)
    return [[model.tokenizer.decode(ids) for ids in of_prompt] for of_prompt in replies]


def reply_ids(
    model: LanguageModel,
    prompts: Sequence[Example],
    config: SamplingConfig,
    *,
    copies: int = 1,
    seed: int = 0,
    first: int = 0,
    rows: int = 256,
    advance: Callable[[int], None] = lambda count: None,
) -> list[list[list[int]]]:
    """Draws `copies` replies to each prompt: their ids, the end of turn among them.

    A reply follows from the seed, the prompt's number and the copy's alone: neither `rows` nor the other prompts change
    it beyond rounding.

    Args:
        model: a decoder.
        prompts: examples that end in an open assistant turn.
        config: how tokens are chosen.
        copies: replies a prompt.
        seed: of all replies.
        first: the first prompt's number; with another one, prompts out of the midst of others get the same replies.
        rows: replies drawn at the same time.
        advance: told how many prompts have been answered.

    Raises:
        BadInput: when a prompt and its reply do not fit the model's context, or a medium of a prompt is missing.
    """
    structure, vocabulary = structure_of(model.config, model.tokenizer), vocabulary_of(model)
    longest = model.config.max_context - config.max_new_tokens
    prompts = [require_fits(prompt, longest, "the model's context less max_new_tokens") for prompt in prompts]
    require_media(prompts, model.tokenizer.soft_tokens, model.config)
    images, sounds = model.tokenizer.soft_tokens
    soft_tokens = images + sounds
    media, seed_key = room([[prompt.media] for prompt in prompts]), jax.random.key(seed)
    replies: list[list[list[int]]] = [[[]] * copies for _ in prompts]
    unanswered = [copies] * len(prompts)
    width = lambda index: bucket(len(prompts[index]))  # noqa: E731

    def waiting(indices: list[int], at_once: int) -> Iterator[Waiting]:
        """The prompts of one width, `at_once` of them in a batch."""
        for begin in range(0, len(indices), at_once):
            chosen = indices[begin : begin + at_once]
            filled = [*chosen, *chosen[:1] * (at_once - len(chosen))]
            batch = pad_left([prompts[i] for i in filled], min(width(chosen[0]), longest), media)
            keys = reply_keys(seed_key, np.array(filled, np.uint32) + np.uint32(first), copies)
            yield Waiting(batch, keys, len(chosen) * copies, cuts_of(batch.tokens, soft_tokens))

    for _, same in itertools.groupby(sorted(range(len(prompts)), key=width), key=width):
        indices = list(same)
        per_batch = min(max(1, rows // copies), len(indices))
        drawn = draw_all(
            structure, model.params, waiting(indices, per_batch), rows=min(rows, len(indices) * copies), copies=copies,
            vocabulary=vocabulary, config=config,
        )  # fmt: skip
        for number, tokens in drawn:
            index, copy = indices[number // copies], number % copies
            replies[index][copy] = tokens.tolist()
            unanswered[index] -= 1
            if not unanswered[index]:
                advance(1)
    return replies


def reply_keys(key: jax.Array, numbers: np.ndarray, copies: int) -> jax.Array:
    """One key for each copy of each numbered prompt, the copies of a prompt beside one another."""
    of_prompt = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(numbers))
    of_copy = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(of_prompt, jnp.arange(copies))
    return of_copy.reshape(-1)
