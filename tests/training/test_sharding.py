import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_world import one_layer

from training.errors import BadInput
from training.sharding import MESH_AXES, RULES, make_mesh, named_sharding, parameter_shardings, replicated

ROOT = Path(__file__).parents[2]


def test_one_device_makes_a_mesh_of_ones():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert mesh.axis_names == MESH_AXES and dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (1, 8, 1)),
        ({"data": 2, "tensor": 2}, (2, 2, 2)),
        ({"data": -1, "fsdp": 4}, (2, 4, 1)),
        ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ],
)
def test_one_size_takes_what_the_others_leave(sizes, shape):
    assert make_mesh(**sizes, devices=[jax.devices()[0]] * 8).devices.shape == shape


@pytest.mark.parametrize(
    ("sizes", "count"),
    [({"data": 3}, 8), ({"data": 2, "fsdp": 2}, 8), ({"data": -1, "fsdp": -1}, 1), ({"fsdp": 0}, 1), ({"data": 16}, 8)],
)
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(sizes, count):
    with pytest.raises(BadInput, match=f"cannot be made of {count} devices"):
        make_mesh(**sizes, devices=[jax.devices()[0]] * count)


def test_the_table_names_axes_of_the_mesh_alone():
    for axes in RULES.values():
        assert axes is None or set(np.atleast_1d(axes)) <= set(MESH_AXES)
    assert RULES["kv_heads"] is None  # one head cannot be split


def test_logical_axes_become_mesh_axes():
    mesh = make_mesh()
    assert named_sharding(mesh, ("embed", "mlp")).spec == PartitionSpec("fsdp", "tensor")
    assert named_sharding(mesh, ("batch",)).spec == PartitionSpec(("data", "fsdp"))
    assert named_sharding(mesh, (None, "embed")).spec == PartitionSpec(None, "fsdp")
    assert replicated(mesh).spec == PartitionSpec()
    with pytest.raises(BadInput, match="no sharding rule for the logical axis 'depth'; known are batch, embed"):
        named_sharding(mesh, ("depth",))


def test_every_parameter_of_a_decoder_has_a_sharding(structure, tiny_model):
    from flax import nnx

    from base_model.checkpoint import logical_axes

    shardings = parameter_shardings(make_mesh(), logical_axes(nnx.merge(structure, tiny_model.params)))
    assert jax.tree.structure(shardings) == jax.tree.structure(tiny_model.params)
    assert shardings["blocks"][0]["attention"]["query"].spec == PartitionSpec("fsdp", "tensor")
    assert shardings["blocks"][0]["mlp"]["down"].spec == PartitionSpec("tensor", "fsdp")


# Two steps on a batch of pictures and text, on one device and on a mesh of eight.
EIGHT = """
import sys
from dataclasses import replace
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from base_model.batch import pack
from base_model.checkpoint import load, logical_axes, split, build
from base_model.interleave import Example
from base_model.likelihood import cross_entropy
from base_model.media import Media
from training.config import TrainingConfig
from training.errors import BadInput
from training.lora import adapt, merged
from training.minimise import initial_state
from training.optimizer import make_optimizer, make_schedule
from training.sharding import make_mesh, shard_batch
from training.step import update

assert len(jax.devices()) == 8
model = load(sys.argv[1])
axes = logical_axes(build(model.config, model.tokenizer))
rng = np.random.default_rng(0)

def example(length, pictures):
    soft = model.tokenizer.control("<image_soft_token>")
    tokens = np.concatenate([np.full(4 * pictures, soft), rng.integers(30, 340, length)])
    images = tuple(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8) for _ in range(pictures))
    return Example(tokens=tokens.astype(np.int32), learn=rng.random(len(tokens)) < 0.7, media=Media(images, ()))

rows = [[example(int(rng.integers(3, 16)), int(rng.integers(0, 2)))] for _ in range(16)]
batch = pack(rows, 24)
config = TrainingConfig(learning_rate=0.01, weight_decay=0.1, adam_epsilon=0.01)
optimizer = make_optimizer(config, make_schedule(config, 10))

def train(mesh):
    # On the mesh as large models are trained: devices keep to their rows, and layers are computed again.
    structure = split(build(model.config, model.tokenizer, mesh=mesh, remat=mesh.size > 1))[0]
    state = initial_state(model.params, axes, optimizer, mesh)
    step = jax.jit(partial(update, loss=partial(cross_entropy, structure), optimizer=optimizer, micro_batches=2))
    for _ in range(2):
        state, metrics = step(state, shard_batch(batch, mesh))
    return state, metrics

reference, metrics = train(make_mesh(devices=jax.devices()[:1]))
mesh = make_mesh(data=2, tensor=2)
state, others = train(mesh)
kernel = state.params["blocks"][0]["mlp"]["up"]
assert len({str(shard.index) for shard in kernel.addressable_shards}) == 4
for name, value in metrics.items():
    np.testing.assert_allclose(value, others[name], rtol=1e-5, err_msg=name)
moved = jax.tree.map(lambda x, y: np.abs(np.asarray(x) - np.asarray(y)).max(), reference.params, state.params)
for path, difference in jax.tree_util.tree_leaves_with_path(moved):
    assert difference < 1e-5, (jax.tree_util.keystr(path), difference)
trained, adapter_axes, frozen = adapt(model.params, axes, replace(config, lora_r=2, lora_target_modules="up"), mesh)
adapters = initial_state(trained, adapter_axes, optimizer, mesh).params
adapter = adapters["blocks"][0]["mlp"]["up"]
assert (adapter["down"].sharding.spec, adapter["up"].sharding.spec) == (jax.P("fsdp", None), jax.P(None, "tensor"))
whole = merged(frozen, adapters)["blocks"][0]["mlp"]["up"]
assert whole.sharding.is_equivalent_to(kernel.sharding, 2)
np.testing.assert_array_equal(whole, model.params["blocks"][0]["mlp"]["up"])
try:
    shard_batch(jax.tree.map(lambda x: x[:6], batch), mesh)
except BadInput as error:
    assert "6 rows cannot be split over 4 devices; make it a multiple of 4" in str(error)
else:
    raise AssertionError("six rows were split over four devices")
print("equal")
"""


def test_a_step_on_eight_devices_is_that_on_one(tiny_model, tmp_path):
    from base_model import checkpoint

    checkpoint.save(one_layer(tiny_model), tmp_path / "model", weights="safetensors")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, str(tmp_path / "model")],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "equal\n"
