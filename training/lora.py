"""Low-rank adapters (LoRA, Hu et al. 2021): what is trained of a model whose own matrices stay as they are.

An adapted matrix is W + alpha / r * A B with A [N, r] and B [r, M]. Losses see whole matrices, merged in float32: the
model that is trained, the one that is measured and the one that is written are the same numbers, and no layer knows of
adapters. That costs a merged copy of the matrices during a step, in the place of gradients of them all.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float

from training.config import TrainingConfig
from training.errors import BadInput
from training.sharding import parameter_shardings

# Adapted are matrices of a decoder's layers. A head starts at random: it has nothing to keep, and is trained whole.
LAYERS, WHOLE = "blocks", "head"


class Frozen(NamedTuple):
    """What adapters adapt.

    Attributes:
        params: of the whole model, where it started.
        scale: alpha / r.
    """

    params: Any
    scale: Float[Array, ""]


def adapt(params: Any, logical_axes: Any, config: TrainingConfig, mesh: Mesh) -> tuple[Any, Any, Frozen | None]:
    """What is trained of a model, and what stays.

    Without lora_r that is everything, and nothing. With it, a tree like that of the parameters has, in the place of
    each chosen matrix of a decoder's layers, `{"down": A, "up": B}`: A ~ N(0, 1 / N), and B = 0, so that nothing has
    changed yet. Heads are in it as they are, and all else is not.

    Args:
        params: nested dicts of arrays.
        logical_axes: names of their axes.
        config: options.
        mesh: where what stays lies.

    Returns:
        What is trained, the names of its axes, and the rest.

    Raises:
        BadInput: when there are no layers, or none has a matrix of a name that is given.
    """
    if not config.lora_r:
        return params, logical_axes, None
    adapters, axes = fresh_adapters(params, logical_axes, config)
    still = jax.tree.map(jax.device_put, params, parameter_shardings(mesh, logical_axes, params))
    return adapters, axes, Frozen(still, jnp.float32(config.lora_alpha / config.lora_r))


def fresh_adapters(params: Any, logical_axes: Any, config: TrainingConfig) -> tuple[Any, Any]:
    """What is trained of a model with lora_r, see `adapt`, and the names of its axes."""
    known = _matrices(params)
    if not known:
        raise BadInput("lora_r adapts the layers of decoders, and this model has none; set it to 0")
    there = ", ".join(sorted(known))
    wanted = known if config.lora_target_modules == "all" else set(config.lora_target_modules.split(","))
    if unknown := sorted(wanted - known):
        raise BadInput(f"lora_target_modules names a matrix that no layer has: {unknown[0]!r}; there are {there}")
    numbers = itertools.count()
    start = lambda: jax.random.fold_in(jax.random.key(config.seed), next(numbers))  # noqa: E731
    return _adapters(params, logical_axes, wanted, config.lora_r, start)


def merged(frozen: Frozen | None, trained: Any) -> Any:
    """The whole model's parameters; `frozen` is None where all of them are trained."""
    return trained if frozen is None else _merged(frozen.params, trained, frozen.scale)


def _merged(params: Any, trained: Any, scale: Array) -> Any:
    if isinstance(params, Mapping):
        return {name: _merged(part, trained[name], scale) if name in trained else part for name, part in params.items()}
    return _adapted(params, trained["down"], trained["up"], scale) if isinstance(trained, Mapping) else trained


@jax.jit
def _adapted(
    kernel: Float[Array, "... N M"],
    down: Float[Array, "... N rank"],
    up: Float[Array, "... rank M"],
    scale: Float[Array, ""],
) -> Float[Array, "... N M"]:
    return kernel + scale * jnp.matmul(down, up, precision=jax.lax.Precision.HIGHEST)


def _matrices(params: Mapping[Any, Any], *, inside: bool = False) -> set[str]:
    """Names of the matrices in layers; `inside` one, all of them."""
    found = set()
    for name, part in params.items():
        if isinstance(part, Mapping):
            found |= _matrices(part, inside=inside or name == LAYERS)
        elif inside and part.ndim > 1:
            found.add(name)
    return found


def _adapters(
    params: Mapping[Any, Any],
    axes: Mapping[Any, Any],
    wanted: set[str],
    rank: int,
    key: Callable[[], Array],
    *,
    inside: bool = False,
) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Adapters and heads, and the names of their axes."""
    found, named = {}, {}
    for name in sorted(params):
        part, of = params[name], axes[name]
        if name == WHOLE:
            found[name], named[name] = part, of
        elif isinstance(part, Mapping):
            adapters = _adapters(part, of, wanted, rank, key, inside=inside or name == LAYERS)
            if adapters[0]:
                found[name], named[name] = adapters
        elif inside and name in wanted and part.ndim > 1:
            *experts, rows, columns = part.shape
            down = jax.random.normal(key(), (*experts, rows, rank)) * rows**-0.5
            found[name] = {"down": down, "up": jnp.zeros((*experts, rank, columns))}
            named[name] = {"down": (*of[:-1], None), "up": (*of[:-2], None, of[-1])}
    return found, named
