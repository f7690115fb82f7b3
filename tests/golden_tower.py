"""An encoder with the parameters of a fixture, by the table of published names."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file

from base_model.checkpoint import split
from base_model.published.table import canonical

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "decoder"


def golden(name, file="golden"):
    """The stored arrays of a fixture."""
    with np.load(FIXTURES / name / f"{file}.npz") as arrays:
        return dict(arrays)


def golden_tower(name, make, table, prefixes):
    """The encoder that `make` makes, with the tensors of the fixture whose names begin with one of the prefixes.

    Each parameter must have its tensor, each tensor its parameter, and their shapes must agree.
    """
    tensors = {canonical(key): value for key, value in load_file(FIXTURES / name / "model.safetensors").items()}
    structure, params = split(nnx.eval_shape(make))
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    ours = {".".join(str(key.key) for key in path): leaf.shape for path, leaf in paths}
    assert set(table) == set(ours)
    assert {tensor.name for tensor in table.values()} == {key for key in tensors if key.startswith(prefixes)}
    leaves = []
    for path, shape in ours.items():
        published = tensors[table[path].name]
        leaves.append(table[path].layout.to_ours(published))
        assert leaves[-1].shape == shape, path
        np.testing.assert_array_equal(table[path].layout.to_published(leaves[-1]), published)
    return nnx.merge(structure, jax.tree.unflatten(tree, [jnp.asarray(leaf) for leaf in leaves]))
