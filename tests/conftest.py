"""One tiny model, its tokenizer and a writer of rows, shared by the tests of every package."""

import json
import random
from dataclasses import replace
from pathlib import Path

import compile_once  # noqa: F401  (what it sets must stand before jax is imported)
import drawings
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from base_model.chat import messages_to_segments
from base_model.checkpoint import LanguageModel, build, split, structure_of
from base_model.config import LayerSpec, ModelConfig
from base_model.image_tokenizer_training import train
from base_model.interleave import interleave
from base_model.media import Media, room
from base_model.tokenizer import Tokenizer
from base_model.vision import VisionConfig
from pipeline import environment

WORDS = (
    "the cat sat on a mat and asked what colour or shape is in this picture red blue green circle square "
    "yes no hello how are you fine thanks tell me where he went today"
).split()


def pytest_collection_modifyitems(items):
    """Files with slow tests first: of two processes, neither is left alone with a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def corpus(sentences=300):
    """Sentences of a small world, always the same."""
    choose = random.Random(0)
    return [" ".join(choose.choices(WORDS, k=8)) + choose.choice(".?!") for _ in range(sentences)]


@pytest.fixture(scope="session", autouse=True)
def config_folder(tmp_path_factory):
    """Keys that runs make for themselves stay out of the user's own folder; programs started by tests see it too."""
    folder = tmp_path_factory.mktemp("config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def in_process():
    """For tests that call the command line: this process keeps its environment, and what it has freed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "prepare", lambda environ: None)
        patch.setattr(environment, "give_back_freed_memory", lambda: None)  # it takes half a second each time
        yield


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory):
    """The folder of a run that went through all stages (tests/fake_run.py); copy it before changing anything in it."""
    import fake_run

    return fake_run.make(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture(scope="session")
def tokenizer():
    """340 ids: 256 bytes, the control tokens, and pieces of the corpus."""
    return Tokenizer.train(corpus(), vocab_size=340)


@pytest.fixture(scope="session")
def tiny_config(tokenizer):
    """Width 32, a sliding and a global layer, one key-value head; pictures of 16 pixels become four soft tokens."""
    layer = LayerSpec(window=6, heads=4, kv_heads=1, head_dim=8, mlp_dim=48)
    layers = (layer, LayerSpec(heads=4, kv_heads=1, head_dim=8, rope_theta=1e6, rope_fraction=0.5, mlp_dim=48))
    vision = VisionConfig(image_size=16, channels=(4, 6), grid=2)
    return ModelConfig(
        vocab_size=tokenizer.vocab_size, embed_dim=32, layers=layers, query_scale=0.4, max_context=96, vision=vision
    )


@pytest.fixture(scope="session")
def tiny_model(tokenizer, tiny_config):
    """A model with every parameter moved off its start, so that a forgotten one shows, and logits that differ."""
    # One compiled function: by themselves, the many small draws would take most of the tests' time.
    params = jax.jit(lambda: split(build(tiny_config, tokenizer, seed=1))[1])()
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(2)
    params = jax.tree.unflatten(tree, [x + jnp.asarray(0.05 * rng.normal(size=x.shape), jnp.float32) for x in leaves])
    params["embedding"] *= 1.5
    return LanguageModel(config=tiny_config, tokenizer=tokenizer, params=params, statistics={})


@pytest.fixture(scope="session")
def structure(tiny_model):
    """The static structure of the tiny model's decoder."""
    return structure_of(tiny_model.config, tiny_model.tokenizer)


@pytest.fixture(scope="session")
def image_tokenizer(tmp_path_factory):
    """36 codes, 16 of them a picture of 16 pixels; it was trained on the four pictures of tests/drawings.py."""
    config = replace(drawings.TRAINING, output_dir=str(tmp_path_factory.mktemp("image_tokenizer")))
    pictures = drawings.as_pictures()
    return train(config, drawings.AUTOENCODER, pictures, pictures)


@pytest.fixture(scope="session")
def picture():
    """Makes the n-th random picture of 16 x 16 pixels."""
    return lambda number=0: np.random.default_rng((7, number)).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def room_for(picture):
    """Room for so many pictures in every row of a batch."""
    return lambda count: room([[Media((picture(),), ())]], slots=Media(count, 0))


@pytest.fixture(scope="session")
def make_example(tokenizer, tiny_config, picture):
    """Makes an example of a question about some pictures, and its reply; without one it ends in an open turn."""

    def make(question, reply=None, *, pictures=()):
        parts = [{"type": "image", "image": picture(number)} for number in pictures]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
        if reply is not None:
            messages.append({"role": "assistant", "content": reply})
        ending = "reply" if reply is None else "document"
        return interleave(
            messages_to_segments(messages, tokenizer, folder=Path(), ending=ending), tokenizer, tiny_config
        )

    return make


@pytest.fixture
def write_rows(tmp_path):
    """Writes rows to a JSONL file in the test's folder."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
