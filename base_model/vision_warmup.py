"""A start for the picture encoder: guess the answer from the picture, with the question hidden.

Trained end to end from scratch, a small decoder finds the question's prior long before it finds the picture and then
ignores the soft tokens. An encoder that already tells colours and shapes apart is not ignored.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from base_model.chat import parts
from base_model.config import ModelConfig
from base_model.images import load_image
from base_model.towers import prepared
from training.dataset import Row
from training.progress import progress


def picture_answers(rows: Sequence[Row], *, at_least: int = 100) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures and the index of an answer given about each, for answers that are frequent.

    Yes and no are left out: without the question they say nothing about a picture.
    """
    pairs = []
    for row in rows:
        messages = row.values["messages"]
        media = [part for message in messages for part in parts(message["content"]) if part["type"] == "image"]
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        answers = [answer for answer in answers if isinstance(answer, str) and answer not in ("yes", "no")]
        if len(media) == 1:
            pairs += [(row.folder, media[0]["image"], answer) for answer in answers]
    counts = Counter(answer for _, _, answer in pairs)
    names = sorted(answer for answer, count in counts.items() if count >= at_least)
    kept = [(folder, image, names.index(answer)) for folder, image, answer in pairs if answer in names]
    return [load_image(image, folder) for folder, image, _ in kept], np.array([label for _, _, label in kept], np.int32)


def warm_up(
    structure: nnx.GraphDef, params: Any, rows: Sequence[Row], config: ModelConfig, *, steps: int, seed: int
) -> Any:
    """Parameters whose picture encoder has been trained for `steps` batches of 64 pictures; the rest is untouched."""
    if steps == 0 or config.vision is None:
        return params
    pictures, labels = picture_answers(rows)
    if not pictures:
        return params
    images = np.stack([prepared(config.vision, picture)[0] for picture in pictures])
    probe = jnp.zeros((config.embed_dim, int(labels.max()) + 1))
    trained = (params["vision"], probe)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, steps, alpha=0.02))

    def loss(trained: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        vision, probe = trained
        soft = nnx.merge(structure, {**params, "vision": vision}).vision(images)[0]
        return optax.softmax_cross_entropy_with_integer_labels(4 * soft.mean(1) @ probe, labels).mean()

    @jax.jit
    def step(trained: Any, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, Any, jax.Array]:
        value, gradients = jax.value_and_grad(loss)(trained, images, labels)
        updates, state = optimizer.update(gradients, state, trained)
        return optax.apply_updates(trained, updates), state, value

    state, rng = optimizer.init(trained), np.random.default_rng((seed, 2))
    with progress("picture encoder", total=steps) as advance:
        for _ in range(steps):
            chosen = rng.integers(0, len(labels), 64)
            shift, flip = rng.integers(-8, 9, 2), rng.random() < 0.5
            batch = np.roll(images[chosen], shift, (1, 2))[:, :, :: -1 if flip else 1]
            trained, state, value = step(trained, state, batch, labels[chosen])
            advance(1, loss=float(value))
    return {**params, "vision": trained[0]}
