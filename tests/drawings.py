"""Four pictures with names, an image tokenizer that knows them, and a model that has its codes."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from tiny_world import as_rows, reply, turn

from base_model.drawing_tokenizer import DrawingTokenizer
from base_model.generate import vocabulary_of
from base_model.image_tokenizer_config import AutoencoderConfig, ImageTokenizerConfig
from base_model.image_tokenizer_training import Pictures

AUTOENCODER = AutoencoderConfig(image_size=16, channels=(6, 8), levels=(4, 3, 3))
TRAINING = ImageTokenizerConfig(
    max_steps=60, per_device_train_batch_size=4, learning_rate=2e-2, matmul_dtype="float32", mirror=False, save_steps=25
)


def _shape(colour, rows, columns):
    picture = np.full((16, 16, 3), 255, np.uint8)
    picture[rows, columns] = colour
    return picture


PICTURES = {
    "red square": _shape((255, 0, 0), slice(4, 12), slice(4, 12)),
    "blue": _shape((0, 0, 255), slice(0, 16), slice(0, 16)),
    "green circle": _shape((0, 160, 0), slice(0, 16), slice(0, 8)),
    "the mat": _shape((40, 40, 40), slice(8, 16), slice(0, 16)),
}


def drawing_rows():
    """Rows in which the assistant draws each picture when it is named."""
    picture = lambda pixels: [{"type": "image", "image": pixels}]  # noqa: E731
    return as_rows({"messages": [turn(name), reply(picture(pixels))]} for name, pixels in PICTURES.items())


def as_pictures():
    """The pictures to train an image tokenizer on."""
    return Pictures(images=np.stack(list(PICTURES.values())), sources=("shapes",) * 3 + ("mats",))


def drawing(model, images):
    """The model with codes, whose embeddings are random."""
    tokenizer = DrawingTokenizer(model.tokenizer, images)
    config = replace(model.config, vocab_size=tokenizer.vocab_size)
    fresh = 0.05 * np.random.default_rng(4).normal(size=(images.config.codes, config.embed_dim))
    embedding = jnp.concatenate([model.params["embedding"], jnp.asarray(fresh, jnp.float32)])
    return replace(model, config=config, tokenizer=tokenizer, params={**model.params, "embedding": embedding})


def few_words(model):
    """The model's vocabulary with eight pieces of text left, so that a reply begins a picture now and then."""
    usual, codes = vocabulary_of(model), model.tokenizer.image_codes
    kept = {usual.end_of_turn, codes.begin, codes.end, *range(codes.first - 8, codes.first)}
    return usual._replace(never_sampled=tuple(number for number in range(codes.first) if number not in kept))


def nearest(picture):
    """Which of the pictures this one is nearest to."""
    distance = {name: np.square(picture.astype(float) - other).mean() for name, other in PICTURES.items()}
    return min(distance, key=lambda name: distance[name])
