"""Tests compile much and compute little: plain code halves their time, and each program is compiled once in a session.

Importing this sets the environment, which jax reads when it is imported and which programs that tests start inherit.
"""

import os
import shutil
import tempfile
from pathlib import Path


def runs(process):
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


PLAIN = "--xla_backend_optimization_level=0"

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {PLAIN}"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The folder goes with the process that made it, which is the last one of the session; that of a process that was
    # killed goes with the next session.
    for left in Path(tempfile.gettempdir()).glob("theodolite-tests-*-*"):
        if not runs(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    _FOLDER = tempfile.TemporaryDirectory(prefix=f"theodolite-tests-{os.getpid()}-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": _FOLDER.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
