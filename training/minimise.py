"""Minimises a loss over batches: optimizer, mesh and loop put together for every trainer that has a fixed data set."""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from training.config import TrainingConfig
from training.loop import Probe, fit
from training.lora import adapt, merged
from training.optimizer import make_optimizer, make_schedule
from training.sharding import make_mesh, placed, replicated, row_shards, shard_batch
from training.step import Totals, TrainState, update


def mesh_of(config: TrainingConfig) -> Mesh:
    """The mesh that a config asks for, over all devices."""
    return make_mesh(data=config.data_parallel, tensor=config.tensor_parallel)


def batch_size_of(config: TrainingConfig, mesh: Mesh) -> int:
    """Rows of one optimizer step over all devices."""
    rows = config.per_device_train_batch_size * config.gradient_accumulation_steps
    return rows * row_shards(mesh)


def abstract_state(params: Any, logical_axes: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a state, whose optimizer moments are sharded like their parameters."""
    place = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
    params = placed(mesh, logical_axes, params)
    moments = optax.tree_map_params(
        optimizer,
        lambda moment, param: place(moment, param.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda x: place(x, replicated(mesh)),
    )
    step: Any = place(jnp.int32(0), replicated(mesh))
    return TrainState(step, params, moments, {})


def initial_state(
    params: Any, logical_axes: Any, optimizer: optax.GradientTransformation, mesh: Mesh, extra: Any = None
) -> TrainState:
    """A state at step 0 with parameters and optimizer moments sharded alike."""
    wanted = abstract_state(params, logical_axes, optimizer, mesh)
    shardings = lambda tree: jax.tree.map(lambda x: x.sharding, tree)  # noqa: E731
    # Copied, because steps donate their state and the caller's parameters must survive that.
    copy = lambda x, sharding: jax.device_put(jnp.array(x, copy=True), sharding)  # noqa: E731
    params = jax.tree.map(copy, params, shardings(wanted.params))
    state = jax.jit(optimizer.init, out_shardings=shardings(wanted.optimizer))(params)
    # The rest is placed too: a step would be compiled a second time for a state that comes from the first.
    step, extra = jax.device_put((jnp.int32(0), {} if extra is None else extra), replicated(mesh))
    return TrainState(step, params, state, extra)


def identity_of(config: TrainingConfig, *parts: str) -> str:
    """Digest of what a run depends on: its options, its data, its parent."""
    options = json.dumps(config.recipe(), sort_keys=True)
    return "sha256:" + hashlib.sha256("\n".join((options, *parts)).encode()).hexdigest()


def minimise(
    loss: Callable[[Any, Any], Totals],
    params: Any,
    logical_axes: Any,
    *,
    batch_at: Callable[[int, int], Any],
    examples: int,
    config: TrainingConfig,
    label: str,
    identity: tuple[str, ...],
    evaluate: Callable[[Any], Mapping[str, float]] | None = None,
    probe: Probe | None = None,
) -> TrainState:
    """Trains parameters on a data set, from the newest saved state if there is one.

    With `lora_r` only adapters of them are trained; what is evaluated, probed and returned has them merged.

    Args:
        loss: maps parameters and a batch to sums and counts, see training.step.
        params: where to start.
        logical_axes: names of the parameters' axes, for the mesh.
        batch_at: the batch of a step, given the step and the number of rows.
        examples: rows of one epoch.
        config: options.
        label: name on the progress bar.
        identity: digests of data and parent.
        evaluate: held-out metrics of parameters.
        probe: see `fit`.
    """
    mesh = mesh_of(config)
    batch_size = batch_size_of(config, mesh)
    total = config.total_steps(examples, batch_size)
    optimizer = make_optimizer(config, make_schedule(config, total))
    trained, axes, frozen = adapt(params, logical_axes, config, mesh)
    whole = lambda state: state._replace(params=merged(frozen, state.params))  # noqa: E731
    step = jax.jit(
        partial(update, loss=loss, optimizer=optimizer, micro_batches=config.gradient_accumulation_steps),
        donate_argnums=0,
    )
    return whole(fit(
        initial_state(trained, axes, optimizer, mesh),
        lambda state, index: step(state, shard_batch(batch_at(index, batch_size), mesh), frozen),
        total_steps=total,
        config=config,
        folder=Path(config.output_dir),
        label=label,
        identity=identity_of(config, *identity),
        evaluate=None if evaluate is None else lambda state: evaluate(whole(state).params),
        probe=None if probe is None else Probe(probe.steps, lambda state: probe.measure(whole(state))),
    ))  # fmt: skip
