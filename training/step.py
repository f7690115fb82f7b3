"""One optimizer step: gradients summed over micro-batches, divided by the count of the whole batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from training.lora import Frozen, merged

Totals = dict[str, tuple[Float[Array, ""], Float[Array, ""]]]
"""Sums and the counts that they are to be divided by; "loss" is the one that is minimised."""


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
        step: optimizer steps done.
        params: what is trained: parameters, or adapters of others.
        optimizer: state of the optimizer.
        extra: what else a trainer carries from step to step (PPO: KL controller, reward statistics).
    """

    step: Int[Array, ""]
    params: Any
    optimizer: Any
    extra: Any


def accumulate(
    loss: Callable[[Any, Any], Totals], params: Any, batch: Any, *, micro_batches: int
) -> tuple[Any, Totals]:
    """Gradient of the batch's mean loss, from micro-batches of any number of tokens.

    The sums' gradients are added first and divided once by the whole count, so that micro-batches with few tokens weigh
    no more than others and the result equals that of the big batch.

    Args:
        loss: maps parameters and a micro-batch to sums and counts.
        params: what is differentiated.
        batch: arrays with rows first.
        micro_batches: in how many equal parts the rows are processed.
    """

    def summed(params: Any, part: Any) -> tuple[Array, Totals]:
        totals = loss(params, part)
        return totals["loss"][0], totals

    gradient = jax.grad(summed, has_aux=True)
    if micro_batches == 1:
        gradients, totals = gradient(params, batch)
    else:
        split = lambda x: x.reshape(micro_batches, x.shape[0] // micro_batches, *x.shape[1:])  # noqa: E731
        parts = jax.tree.map(split, batch)
        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        add = lambda carry, part: (jax.tree.map(jnp.add, carry, gradient(params, part)), None)  # noqa: E731
        (gradients, totals), _ = jax.lax.scan(add, zeros, parts)
    count = jnp.maximum(totals["loss"][1], 1)
    return jax.tree.map(lambda g: g / count, gradients), totals


def means(totals: Totals) -> dict[str, Float[Array, ""]]:
    """Divides each sum by its count; nothing counted gives 0."""
    return {name: total / jnp.maximum(count, 1) for name, (total, count) in totals.items()}


def update(
    state: TrainState,
    batch: Any,
    frozen: Frozen | None = None,
    *,
    loss: Callable[[Any, Any], Totals],
    optimizer: optax.GradientTransformation,
    micro_batches: int,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One optimizer step, and the batch's metrics with the gradient norm before clipping.

    Args:
        state: whose parameters are trained.
        batch: arrays with rows first.
        frozen: what they adapt, if they are adapters (training/lora.py).
        loss: maps the whole model's parameters and a micro-batch to sums and counts.
        optimizer: of what is trained.
        micro_batches: see accumulate.
    """
    whole = lambda trained, part: loss(merged(frozen, trained), part)  # noqa: E731
    gradients, totals = accumulate(whole, state.params, batch, micro_batches=micro_batches)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = means(totals) | {"grad_norm": optax.tree.norm(gradients)}
    return TrainState(state.step + 1, params, optimizer_state, state.extra), metrics
