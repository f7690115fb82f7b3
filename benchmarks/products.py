"""Matrix products of bert-base's shapes: what is left to gain where a classifier's padding is gone.

    python benchmarks/products.py

Figures go to benchmarks/results/products.json and from there into docs/scorers.md. torch is measured beside JAX
where it is installed. bfloat16 has 8 binary digits of float32's 24: operands can be split into two such parts,
which takes three products, or into three, which takes six. Seconds are the processor's, of all cores.
"""

import sys
import time
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts import result  # noqa: E402

TOKENS, WIDTH, HIDDEN = 2048, 768, 3072
# Inner and outer size of a layer's products, and how many of them there are.
SHAPES = {(WIDTH, WIDTH): 4, (WIDTH, HIDDEN): 1, (HIDDEN, WIDTH): 1}
LAYERS, ROUNDS = 12, 10
WAYS = {
    "torch": "torch, float32",
    "float32": "JAX, float32",
    "six": "JAX, six of bfloat16 parts",
    "three": "JAX, three of bfloat16 parts",
    "bfloat16": "JAX, bfloat16",
}
# Which parts of the left operand meet which of the right one; the smallest products are left out.
MEETINGS = {"six": ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)), "three": ((0, 0), (0, 1), (1, 0)),
            "bfloat16": ((0, 0),)}  # fmt: skip


def parts(x: jax.Array) -> list[jax.Array]:
    """Three bfloat16 arrays that add up to x."""
    found = []
    for _ in range(3):
        found.append(x.astype(jnp.bfloat16))
        x = x - found[-1].astype(jnp.float32)
    return found


def product(way: str, right: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The product with a matrix that is prepared once, as weights are."""
    if way == "torch":
        import torch

        weight = torch.from_numpy(right.T.copy())
        return lambda left: torch.nn.functional.linear(torch.from_numpy(left), weight).numpy()
    if way == "float32":
        full = jax.jit(lambda left, right: jnp.dot(left, right, precision="highest"))
        weight = jnp.asarray(right)
        return lambda left: np.asarray(full(left, weight))
    split = parts(jnp.asarray(right))
    stacked = jnp.concatenate([split[theirs] for _, theirs in MEETINGS[way]])

    @jax.jit
    def by_parts(left, stacked):
        own = parts(left)
        left = jnp.concatenate([own[ours] for ours, _ in MEETINGS[way]], -1)
        return jnp.dot(left, stacked, preferred_element_type=jnp.float32)

    return lambda left: np.asarray(by_parts(left, stacked))


def measure() -> dict:
    """Seconds and errors of each way, the ways in turn."""
    rng, ways = np.random.default_rng(0), [way for way in WAYS if way != "torch" or find_spec("torch")]
    seconds, errors = ({way: {} for way in ways} for _ in range(2))
    for shape in SHAPES:
        left, right = (rng.standard_normal(size, dtype=np.float32) for size in ((TOKENS, shape[0]), shape))
        truth = left.astype(np.float64) @ right.astype(np.float64)
        ready = {way: product(way, right) for way in ways}
        for way, run in ready.items():  # compiles, too
            errors[way][shape] = float(np.sqrt(np.mean((run(left) - truth) ** 2)) / truth.std())
        taken = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, run in ready.items():
                begun = time.process_time()
                run(left)
                taken[way].append(time.process_time() - begun)
        for way, of_way in taken.items():
            seconds[way][shape] = min(of_way)
    layer = {way: sum(SHAPES[shape] * one for shape, one in of.items()) for way, of in seconds.items()}
    work = sum(2 * TOKENS * np.prod(shape) * count for shape, count in SHAPES.items())
    return {
        "tokens": TOKENS,
        "layers": LAYERS,
        "operations_a_token": float(LAYERS * work / TOKENS),
        "torch": metadata.version("torch") if "torch" in ways else None,
        "ways": {
            way: {
                "tokens_a_second": TOKENS / (LAYERS * layer[way]),
                "operations_a_second": float(work / layer[way]),
                "error": max(errors[way].values()),
            }
            for way in ways
        },
    }


def table(found: dict) -> str:
    """One row for each way; a token's products are those of all layers."""
    slow = found["ways"]["float32"]["tokens_a_second"]
    rows = [
        [words, f"{one['operations_a_second'] / 1e9:.0f}", f"{one['tokens_a_second']:.0f}",
         f"{one['tokens_a_second'] / slow:.1f}", f"{one['error']:.0e}"]
        for way, words in WAYS.items() if way in found["ways"] for one in [found["ways"][way]]
    ]  # fmt: skip
    header = ["matrix products", "GFLOP a CPU second", "tokens a CPU second", "times float32", "error of a product"]
    return result.table(header, rows)


def main() -> None:
    print(result.write("products", measure()))
    result.fill(ROOT / "docs" / "scorers.md", "products", table(result.read("products")))


if __name__ == "__main__":
    main()
