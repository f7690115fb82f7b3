"""The result of PPO: a point of the straight line between the model that it starts from and the one it ends with.

The last stretch of a run buys much reward for little and costs most diversity. Walking some of it back on the straight
line to the start trades the two better than stopping earlier does: linear interpolation towards initialisation (LITI),
the last step of WARP (Ramé et al. 2024, section 3.3). How far to walk back is said by what it is done for: how varied
replies to the same prompt are to stay.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from base_model.checkpoint import LanguageModel
from base_model.generate import generate
from base_model.interleave import Example
from base_model.sampling import SamplingConfig
from safety.metrics import distinct

HALVINGS = 6  # the share of the way is found to within 1/64
PROMPTS, COPIES = 64, 25  # what diversity is measured on


def walked_back(
    start: LanguageModel, end: LanguageModel, prompts: Sequence[Example], sampling: SamplingConfig, *, limit: float
) -> tuple[LanguageModel, dict[str, float]]:
    """The end, or the point on the way to it whose replies keep so much of the start's diversity.

    Args:
        start: the reference.
        end: the trained policy.
        prompts: replies to some of them, evenly chosen, are drawn from the same keys at each point.
        sampling: how.
        limit: how much of the start's distinct-2 is to be kept.

    Returns:
        The result; and as metrics which share of the way it keeps, and which share of the start's distinct-2.
    """
    asked = prompts[:: max(1, len(prompts) // PROMPTS)][:PROMPTS]

    def at(share: float) -> LanguageModel:
        return end.with_params(interpolated(start.params, end.params, share))

    def diversity(share: float) -> float:
        replies = generate(at(share), asked, sampling, copies=COPIES)
        return float(np.mean([distinct(texts, 2) for texts in replies]))

    whole = diversity(0.0)
    share = largest_share(lambda share: diversity(share) >= limit * whole)
    return at(share), {"result_share": share, "result_diversity": diversity(share) / whole if whole else 1.0}


def interpolated(start: Any, end: Any, share: float) -> Any:
    """Parameters on the straight line: start + share * (end - start), in float32.

    Args:
        start: parameters of the reference.
        end: of the trained policy, of the same shapes.
        share: how much of the way stays, from 0 to 1; these two give `start` and `end` themselves.
    """
    if share in (0, 1):
        return end if share else start

    def between(a: jax.Array, b: jax.Array) -> jax.Array:
        first, last = a.astype(jnp.float32), b.astype(jnp.float32)
        return (first + share * (last - first)).astype(b.dtype)

    return jax.tree.map(between, start, end)


def largest_share(holds: Callable[[float], bool]) -> float:
    """The largest share of the way, from 0 to 1, for which something holds that held at the start; by halving."""
    if holds(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
