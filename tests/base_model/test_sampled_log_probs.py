"""What the sampler says of its tokens is what the trainer says of them.

Of the published families those with a cache or masks of their own: the others' step-by-step passes are in test_golden.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from base_model.batch import Batch, cuts_of, pad_left
from base_model.checkpoint import build, split
from base_model.config import read_config
from base_model.gemma import control_tokens, model_config, soft_tokens
from base_model.generate import reply_keys, vocabulary_of
from base_model.interleave import Example
from base_model.media import stack
from base_model.published.golden import read_golden, rows_of
from base_model.published.golden_media import media_of
from base_model.published.model import abstract_model, read_params
from base_model.sampling import SamplingConfig, Vocabulary, sample
from ppo.rollout import Models, join, response_log_probs, responses_of

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "decoder"
# Models with encoders take long to compile; what the last two have, the golden passes step by step have too.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3", "gemma4_e")]
MORE = [
    pytest.param(name, marks=[pytest.mark.slow, pytest.mark.exhaustive])
    for name in ("gemma4_dense", "gemma4_moe_text")
]
LENGTH, COPIES = 14, 2


def published(name):
    """A fixture's model, and prompts of ragged lengths, with pictures where it has an encoder of them."""
    folder = FIXTURES / name
    description = read_config(folder / "config.json")
    config, places = model_config(description), soft_tokens(description)
    structure, like = abstract_model(config, places)
    case = next(case for case in read_golden(folder / "golden.npz").cases if case.name == "batch_left")
    tokens, positions, segments = rows_of(case.inputs)
    prompts = Batch(tokens, segments, positions, segments > 0, stack(media_of(case.inputs, config, places)))
    vocabulary = Vocabulary(int(tokens[0, -1]), control_tokens(description))
    return structure, read_params(folder, config, like), vocabulary, prompts, places.images + places.sounds


def shipped(tiny_model, structure, make_example):
    examples = [make_example("what colour is this", pictures=[0]), make_example("hello"), make_example("how are you")]
    soft = tiny_model.tokenizer.soft_tokens
    prompts = pad_left(examples, 32)
    return structure, tiny_model.params, vocabulary_of(tiny_model), prompts, soft.images + soft.sounds


@pytest.mark.parametrize("name", ["tiny", *SLOW, *MORE])
def test_sampled_log_probs_are_the_trainers(name, tiny_model, structure, make_example):
    ours = name == "tiny"
    model = shipped(tiny_model, structure, make_example) if ours else published(name)
    decoder, params, vocabulary, prompts, soft = model
    # The prompts are longer than the windows, and read in parts; the replies go on beyond the windows, too.
    cuts = cuts_of(prompts.tokens, soft, at_once=12)
    assert cuts and not any(np.isin(prompts.tokens[:, cut - 1 : cut + 1], soft).all(1).any() for cut in cuts)
    keys = reply_keys(jax.random.key(1), np.arange(len(prompts.tokens), dtype=np.uint32), COPIES)
    samples = sample(
        decoder, params, prompts, keys, vocabulary=vocabulary, config=SamplingConfig(max_new_tokens=LENGTH),
        copies=COPIES, cuts=cuts,
    )  # fmt: skip
    assert np.asarray(samples.mask).sum(1).max() == LENGTH
    copied = jax.tree.map(lambda x: np.repeat(x, COPIES, 0), prompts)
    models = Models(decoder, vocabulary)
    score = jax.jit(lambda params, rows: response_log_probs(models, params, rows, length=LENGTH, temperature=1.0))
    expected, _ = score(params, join(copied, responses_of(samples, vocabulary)))
    np.testing.assert_allclose(samples.log_probs, np.where(samples.mask, expected, 0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_is_drawn_behind_a_prompt_of_32k_tokens_is_the_trainers(tiny_model):
    """The reply ends where a context of 32,768 tokens does; one head, for a billion pairs of tokens each take time."""
    length, width = 16, 32_768 - 16
    config = replace(tiny_model.config, layers=tuple(replace(spec, heads=1) for spec in tiny_model.config.layers))
    structure, params = split(build(config, tiny_model.tokenizer, seed=1))
    endless = vocabulary_of(tiny_model)._replace(end_of_turn=-1, stops=())
    asked = np.random.default_rng(0).integers(3, 200, width).astype(np.int32)
    prompts = pad_left([Example(tokens=asked, learn=np.zeros(width, bool))], width)
    cuts = cuts_of(prompts.tokens, ())
    assert len(cuts) == 15
    samples = sample(
        structure, params, prompts, reply_keys(jax.random.key(1), np.arange(1, dtype=np.uint32), 1),
        vocabulary=endless, config=SamplingConfig(max_new_tokens=length), cuts=cuts,
    )  # fmt: skip
    score = jax.jit(partial(response_log_probs, Models(structure, endless), length=length, temperature=1.0))
    expected, _ = score(params, join(prompts, responses_of(samples, endless)))
    np.testing.assert_allclose(samples.log_probs, expected, atol=1e-5)
