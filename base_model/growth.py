"""Parameters of a trained model, taken into a larger one that reads or writes more than it does."""

from typing import Any

import jax
import jax.numpy as jnp

from training.errors import BadInput


def grown(fresh: Any, trained: Any) -> Any:
    """The fresh parameters of a model, with those of a trained one wherever that has them.

    What the trained model lacks stays fresh: an encoder of its own for sounds, say, or ids behind its last one, which
    are further rows of the embedding.

    Args:
        fresh: parameters of the larger model.
        trained: of the smaller one, whose tree is part of the larger one's.

    Raises:
        BadInput: where the larger model has no place for something, or one of another shape.
    """
    known = dict(jax.tree_util.tree_leaves_with_path(trained))

    def take(path: tuple, leaf: jax.Array) -> jax.Array:
        old = known.pop(path, None)
        if old is None:
            return leaf
        if old.shape[1:] != leaf.shape[1:] or len(old) > len(leaf):
            raise BadInput(f"the model to go on from has {_name(path)} of shape {old.shape}, and the larger one needs "
                           f"{leaf.shape}: only rows can be added to what was trained")
        return jnp.concatenate([jnp.asarray(old, leaf.dtype), leaf[len(old) :]])

    params = jax.tree_util.tree_map_with_path(take, fresh)
    if known:
        raise BadInput(f"the model to go on from has {_name(min(known, key=_name))}, for which the larger one has no "
                       "place: choose a shape with all that it has")
    return params


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
