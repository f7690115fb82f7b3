import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_world import one_layer

from training.errors import BadInput
from training.sharding import MESH_AXES, RULES, make_mesh, named_sharding, parameter_shardings, placed, replicated

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
    mesh = make_mesh(devices=[jax.devices()[0]] * 8)
    assert named_sharding(mesh, ("embed", "mlp")).spec == PartitionSpec("fsdp", "tensor")
    assert named_sharding(mesh, ("batch",)).spec == PartitionSpec(("data", "fsdp"))
    assert named_sharding(mesh, (None, "embed")).spec == PartitionSpec(None, "fsdp")
    assert replicated(mesh).spec == PartitionSpec()
    with pytest.raises(BadInput, match="no sharding rule for the logical axis 'depth'; known are batch, embed"):
        named_sharding(mesh, ("depth",))


def test_on_one_device_everything_lies_as_any_array_does():
    """What was trained there and what was read from a folder are then the same to a compiled program."""
    mesh = make_mesh(devices=jax.devices()[:1])
    assert named_sharding(mesh, ("embed", "mlp")) == replicated(mesh) == jax.numpy.zeros(()).sharding
    assert jax.device_put(np.zeros(2), replicated(mesh)).sharding == jax.numpy.zeros(()).sharding


def test_every_parameter_of_a_decoder_has_a_sharding(structure, tiny_model):
    from flax import nnx

    from base_model.checkpoint import logical_axes

    axes = logical_axes(nnx.merge(structure, tiny_model.params))
    shardings = parameter_shardings(make_mesh(tensor=2, devices=[jax.devices()[0]] * 4), axes, tiny_model.params)
    assert jax.tree.structure(shardings) == jax.tree.structure(tiny_model.params)
    assert shardings["blocks"][0]["attention"]["query"].spec == PartitionSpec("fsdp", "tensor")
    assert shardings["blocks"][0]["mlp"]["down"].spec == PartitionSpec("tensor", "fsdp")


@pytest.mark.parametrize(
    ("sizes", "embed", "wrong", "fitting"),
    [
        ({}, 36, "blocks.0.down is 36 wide where .* the 8 devices of its axis fsdp", (2, 1)),
        ({"tensor": 2}, 8, "embedding is 9 wide where .* the 2 devices of its axis tensor", (1, 1)),
        ({"tensor": 4}, 6, "blocks.0.down is 6 wide where .* the 4 devices", (4, 1)),
    ],
)
def test_a_mesh_that_does_not_divide_a_width_is_refused_with_one_that_does(sizes, embed, wrong, fitting):
    axes = {"blocks": {0: {"down": ("mlp", "embed"), "norm": (None,)}}, "embedding": ("vocab", "embed"), "bias": ()}
    widths = {"embed": embed, "mlp": 6, "vocab": 9, None: 5}
    shape = lambda names: jax.ShapeDtypeStruct([widths[name] for name in names], np.float32)  # noqa: E731
    params = jax.tree.map(shape, axes, is_leaf=lambda x: isinstance(x, tuple))
    mesh = partial(make_mesh, devices=[jax.devices()[0]] * 8)
    with pytest.raises(BadInput, match=wrong) as refused:
        parameter_shardings(mesh(**sizes), axes, params)
    data, tensor = fitting
    assert f"; set data_parallel={data} tensor_parallel={tensor}, or" in str(refused.value)
    assert placed(mesh(data=data, tensor=tensor), axes, params)["bias"].shape == ()


# Two steps on a batch of pictures and text, on one device and on a mesh of eight.
EIGHT = """
import sys
from dataclasses import replace
from functools import partial
import jax, jax.numpy as jnp, numpy as np
from base_model import model_folder
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
from devices import held

assert len(jax.devices()) == 8
safetensors, orbax, mixed = sys.argv[1:]
seen, digest = [], model_folder.content_digest
model_folder.content_digest = lambda tree: (seen.append(held()), digest(tree))[1]
spread = [load(folder, mesh=make_mesh()) for folder in (safetensors, orbax)]
whole = sum(leaf.nbytes for leaf in jax.tree.leaves(spread[0].params))
assert len(seen) == 2 and max(seen) <= held() < 2 * whole / 5, (seen, held(), whole)  # an eighth of each, and norms
for folder, model in zip((safetensors, orbax), spread):
    jax.tree.map(np.testing.assert_array_equal, model.params, load(folder).params)
    assert len(model.params["embedding"].sharding.device_set) == 8
try:
    load(mixed, mesh=make_mesh())
except BadInput as error:
    assert "are not those that were saved there" in str(error)
else:
    raise AssertionError("other parameters than those of config.json were read")
model = load(safetensors)
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

    model = one_layer(tiny_model)
    folders = [tmp_path / name for name in ("safetensors", "orbax", "mixed", "other")]
    checkpoint.save(model, folders[0], weights="safetensors")
    checkpoint.save(model, folders[1])
    checkpoint.save(model.with_params(jax.tree.map(lambda x: 2 * x, model.params)), folders[3])
    shutil.copytree(folders[1], folders[2], ignore=lambda *_: ["params"])
    shutil.copytree(folders[3] / "params", folders[2] / "params")
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    path = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", EIGHT, *map(str, folders[:3])],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "equal\n"
