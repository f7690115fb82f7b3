"""Pictures, clips and sounds reach policy, critic and reward model, each its own row and no other."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_world import as_rows, one_layer, scalar

from base_model.batch import pad_left
from base_model.checkpoint import build, split, structure_of
from base_model.config import ClipsConfig
from base_model.conformer import ConformerConfig
from base_model.gemma4_vision import Gemma4VisionConfig
from base_model.generate import reply_ids, vocabulary_of
from base_model.likelihood import held_out
from base_model.media import NO_MEDIA, Media, blanked
from base_model.sampling import SamplingConfig
from ppo.prompts import prompt_examples
from ppo.rollout import Models, response_log_probs, response_values, reward_scores
from reward.model import score
from training.errors import BadInput

KINDS = ("image", "video", "audio")
ASKED = [(), ("image",), ("video",), ("audio",), ("image", "video", "audio", "image")]
LENGTH = 160


@pytest.fixture(scope="module")
def model(tiny_model):
    """One layer behind an encoder of pictures and one of sounds, whose soft tokens differ in number."""
    base = one_layer(tiny_model)
    vision = Gemma4VisionConfig(
        patch=2, pool=2, width=16, layers=1, heads=1, head_dim=16, mlp_dim=16, places=30, max_soft_tokens=6
    )
    audio = ConformerConfig(bands=16, channels=(2, 2), width=16, layers=1, heads=1, output_dim=16)
    config = replace(base.config, max_context=256, clips=ClipsConfig(max_frames=2), vision=vision, audio=audio)
    params = jax.jit(lambda: split(build(config, base.tokenizer, seed=1))[1])()
    return replace(base, config=config, params={**params, "embedding": base.params["embedding"]})


@pytest.fixture(scope="module")
def measure(model):
    """What policy, critic and reward model make of each row of a batch, [3, B]."""
    models = Models(structure_of(model.config, model.tokenizer), vocabulary_of(model))
    critic, judge = scalar(model, seed=1), scalar(model, seed=2)

    @jax.jit
    def answers(batch):
        said = response_log_probs(models, model.params, batch, length=2, temperature=1.0)[0][:, 0]
        worth = response_values(models, critic.params, batch, length=2)[:, 0]
        return jnp.stack([said, worth, reward_scores(models, judge.params, batch)])

    return lambda batch: np.asarray(answers(jax.tree.map(jnp.asarray, batch)))


def medium(kind, *, swapped):
    """A medium of a kind, or another one of the same size."""
    rng = np.random.default_rng((swapped, KINDS.index(kind)))
    if kind == "image":
        return rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    if kind == "video":
        return {"array": rng.integers(0, 256, (2, 16, 20, 3), dtype=np.uint8), "fps": 1}
    pitch = 2500 if swapped else 300  # noise would sound like other noise
    return {"array": np.sin(2 * np.pi * pitch * np.arange(8000) / 16_000), "sampling_rate": 16_000}


def prompts(model, *, swapped=()):
    """The prompts of ASKED, media of the kinds `swapped` being others."""
    rows = []
    for kinds in ASKED:
        content = [{"type": kind, kind: medium(kind, swapped=kind in swapped)} for kind in kinds]
        rows.append({"prompt": [{"role": "user", "content": [*content, {"type": "text", "text": "what is this"}]}]})
    return prompt_examples(as_rows(rows), model, max_length=LENGTH)


def test_another_medium_changes_logits_values_and_scores_of_its_rows(model, measure):
    examples = [example for kind in (None, *KINDS) for example in prompts(model, swapped=(kind,))]
    batch = pad_left(examples, LENGTH)
    found = measure(batch)
    assert np.isfinite(found).all()
    first, *others = np.split(found, 1 + len(KINDS), axis=1)
    for kind, other in zip(KINDS, others, strict=True):
        for before, after in zip(first, other, strict=True):
            assert (np.abs(before - after) > 1e-6).tolist() == [kind in kinds for kinds in ASKED], kind
    dark = measure(batch._replace(media=blanked(batch.media)))
    assert np.isfinite(dark).all()
    for before, after in zip(first, dark, strict=True):
        assert (np.abs(before - after[: len(ASKED)]) > 1e-6).tolist() == [bool(kinds) for kinds in ASKED]


@pytest.mark.parametrize(("kind", "named"), list(zip(KINDS, ("pictures", "clips", "sounds"), strict=True)))
def test_a_medium_that_is_missing_is_an_error_before_anything_is_computed(model, kind, named):
    there = prompts(model)
    alone, among_others = there[1 + KINDS.index(kind)], there[-1]
    images, sounds = among_others.media
    fewer = Media(images, ()) if kind == "audio" else Media(images[1:], sounds)
    structure, judge = structure_of(model.config, model.tokenizer), scalar(model)
    for lost in (replace(alone, media=NO_MEDIA), replace(among_others, media=fewer)):
        for read in (
            lambda rows: reply_ids(model, rows, SamplingConfig(max_new_tokens=2)),
            lambda rows: held_out(structure, model.params, rows),
            lambda rows: score(judge, rows),
        ):
            with pytest.raises(BadInput, match=rf"places for \d+ soft tokens of .*{named}.*, and the media beside it"):
                read([there[0], lost])


def test_a_medium_that_goes_missing_on_the_way_to_a_step_is_no_number(model, measure):
    rows = pad_left(prompts(model), LENGTH)
    lost = measure(rows._replace(media=Media()))
    assert np.isnan(lost).tolist() == [[bool(kinds) for kinds in ASKED]] * 3
