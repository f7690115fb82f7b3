"""Tests compile much and compute little: plain code halves their time, and each program is compiled once in a session.

Importing this sets the environment, which jax reads when it is imported and which programs that tests start inherit.
"""

import os
import tempfile

PLAIN = "--xla_backend_optimization_level=0"

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {PLAIN}"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # The folder goes with the process that made it, which is the last one of the session.
    _FOLDER = tempfile.TemporaryDirectory(prefix="theodolite-tests-")
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": _FOLDER.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
