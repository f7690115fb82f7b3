"""Rows and small models for the tests of trainers."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from reward.model import initial_params
from training.dataset import Row

# Question, reply, numbers of pictures: ragged, with no picture, one and two.
TALK = (
    ("hello", "fine thanks", ()),
    ("what colour is this picture", "red", (1,)),
    ("tell me where he went today", "on a mat", ()),
    ("circle or square", "circle yes", (2, 3)),
    ("how are you", "the cat sat on the mat", ()),
    ("is this a circle", "no", (4,)),
)


def turn(text, pictures=()):
    """A user's turn; pictures are arrays or file names."""
    return {
        "role": "user",
        "content": [*({"type": "image", "image": p} for p in pictures), {"type": "text", "text": text}],
    }


def reply(text):
    """An assistant's turn."""
    return {"role": "assistant", "content": text}


def as_rows(values):
    """Rows that are not in a file; pictures in them are arrays."""
    return [Row(value, f"rows:{number}", Path()) for number, value in enumerate(values, 1)]


def talk_rows(picture):
    """Conversations of TALK."""
    return as_rows({"messages": [turn(q, [picture(n) for n in p]), reply(a)]} for q, a, p in TALK)


def prompt_rows(picture):
    """Prompts of TALK."""
    return as_rows({"prompt": [turn(q, [picture(n) for n in p])]} for q, _, p in TALK)


def one_layer(model):
    """A model's first layer, window off: half the time to compile."""
    spec = replace(model.config.layers[0], window=None)
    params = {**model.params, "blocks": {0: model.params["blocks"][0]}}
    return replace(model, config=replace(model.config, layers=(spec,)), params=params)


def scalar(model, *, seed=0):
    """A reward model on a model's trunk, moved a little, with a head whose bias is not 0."""
    params = initial_params(model, seed=seed)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    leaves = [x + jnp.asarray(0.02 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
    return replace(model, kind="scalar", params=jax.tree.unflatten(tree, leaves))


class Killed(Exception):
    """What a test throws into a run."""


def killed_at(call, function):
    """The function, but its `call`-th call (from 1) is the end."""
    calls = []

    def limited(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            raise Killed
        return function(*arguments, **options)

    return limited
