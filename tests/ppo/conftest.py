"""Golden values of other PPO implementations (tests/fixtures/ppo_golden.md), each replayed in float64 and in float32.

The tests call jitted functions and leave the rest to NumPy: outside of jit, JAX compiles every operation by itself,
which would take nine tenths of their time. That a function gives the same without jit is one test in each file.
"""

from pathlib import Path

import jax
import numpy as np
import pytest

GOLDEN = dict(np.load(Path(__file__).parents[1] / "fixtures" / "ppo_golden.npz"))


@pytest.fixture(params=["float64", "float32"])
def tolerance(request):
    with jax.enable_x64(request.param == "float64"):
        yield {"float64": 1e-10, "float32": 2e-5}[request.param]


@pytest.fixture(scope="session")
def golden():
    """Reads one array, masks as booleans."""

    def read(key):
        array = GOLDEN[key]
        if "mask" in key:
            return array.astype(bool)
        # A few were recorded in float32; the functions under test would stay there.
        return array.astype(np.float64) if array.dtype == np.float32 else array

    return read


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield
