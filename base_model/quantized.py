"""Matrices in 4 or 8 bits: whole numbers, and a scale for each group of them, by qwix.

The decoder's matrices and embeddings are quantised; norms stay in float32 and encoders in bfloat16, which is little
beside the rest. A quantised checkpoint is small on disk and is read back into float32: what computes is the model with
rounded weights, in the sampler, in gates and in training alike.
"""

from collections.abc import Mapping
from types import ModuleType

import jax.numpy as jnp
import numpy as np

from base_model.extras import extra

GROUP = 64
_VALUES, _SCALES = ".values", ".scales"
_ENCODERS = ("vision.", "audio.", "trunk.vision.", "trunk.audio.")


def quantiser() -> ModuleType:
    """The library that rounds; reading takes none.

    Raises:
        BadInput: when it is not installed.
    """
    return extra("qwix", "quantised checkpoints", name="quantize")


def quantised(named: Mapping[str, np.ndarray], bits: int) -> dict[str, np.ndarray]:
    """Arrays as they are stored: a quantised one as two, its values (two of 4 bits to a byte) and its scales.

    Symmetric, round to nearest: x ~ scale * value with scale = max |x| / (2^(bits - 1) - 1/2) of each group. A group
    is 64 numbers of the axis that is summed over, the whole axis where 64 does not divide it.

    Args:
        named: parameters by their dotted paths.
        bits: 4 or 8.
    """
    qwix, dtype = quantiser(), {4: jnp.int4, 8: jnp.int8}[bits]
    stored = {}
    for name, array in named.items():
        if name.startswith(_ENCODERS) or array.ndim < 2 or array.shape[-1] % 2:
            stored[name] = np.asarray(array, jnp.bfloat16 if name.startswith(_ENCODERS) else np.float32)
            continue
        # Rows of an embedding are looked up and multiplied along their length, other matrices along the one before.
        axis = array.ndim - (1 if name.endswith(("embedding", "table")) else 2)
        group = GROUP if array.shape[axis] % GROUP == 0 else array.shape[axis]
        others = [other for other in range(array.ndim) if other != axis]
        found = qwix.quantize(jnp.asarray(array, jnp.float32), dtype, channelwise_axes=others, tiled_axes={axis: group})
        values = np.asarray(found.qvalue.astype(jnp.int8))
        stored[name + _VALUES] = _packed(values) if bits == 4 else values
        stored[name + _SCALES] = np.asarray(found.scale)
    return stored


def dequantised(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays by their own names again, quantised ones in float32.

    Raises:
        ValueError: when values and scales do not fit together.
    """
    named = {}
    for name, array in stored.items():
        if name.endswith(_VALUES):
            name = name.removesuffix(_VALUES)
            values = _unpacked(array) if array.dtype == np.uint8 else array
            named[name] = values.astype(np.float32) * _spread(stored.get(name + _SCALES), values.shape, name)
        elif not name.endswith(_SCALES):
            named[name] = array
    return named


def _spread(scales: np.ndarray | None, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The scale of every value."""
    if scales is not None and scales.ndim == len(shape) and 0 not in scales.shape:
        for axis, size in enumerate(shape):
            scales = np.repeat(scales, size // scales.shape[axis], axis)
        if scales.shape == shape:
            return scales
    raise ValueError(f"{name} has no scales that fit its values")


def _packed(values: np.ndarray) -> np.ndarray:
    """Neighbours of the last axis in one byte, the first in its lower half."""
    halves = values.view(np.uint8) & 15
    return halves[..., ::2] | halves[..., 1::2] << 4


def _unpacked(pairs: np.ndarray) -> np.ndarray:
    signed = [(half.view(np.int8) << 4) >> 4 for half in (pairs & 15, pairs >> 4)]
    return np.stack(signed, -1).reshape(*pairs.shape[:-1], -1)
