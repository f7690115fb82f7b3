"""What the process wants in its environment before jax and its neighbours are imported.

XLA's compiled programs are kept under the user's cache folder, so a second run starts in a fraction of the time.
`THEODOLITE_COMPILE_CACHE=off` turns that off, and whoever sets `JAX_COMPILATION_CACHE_DIR` keeps their own choice.
"""

import hashlib
import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

CACHE_SWITCH = "THEODOLITE_COMPILE_CACHE"


def prepare(environ: MutableMapping[str, str]) -> None:
    """Fills in what the user has not set: quiet native libraries and the compile cache.

    Args:
        environ: `os.environ`, changed in place; jax reads it when it is imported.
    """
    environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's C++ warnings are of no use to a reader of our output
    environ.setdefault("GRPC_VERBOSITY", "ERROR")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    switched_off = environ.get(CACHE_SWITCH, "on").lower() in ("off", "0", "false", "no")
    on_cpu = environ.get("JAX_PLATFORMS", "cpu").lower() in ("", "cpu")
    if switched_off or not on_cpu or "JAX_COMPILATION_CACHE_DIR" in environ:
        return
    environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache_folder(environ))
    environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _cache_folder(environ: MutableMapping[str, str]) -> Path:
    root = environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if os.path.isabs(root) else Path(environ.get("HOME", "~")).expanduser() / ".cache"
    return base / "theodolite" / "xla" / _processor()


def _processor() -> str:
    """A short name for this processor: programs compiled for one may crash another that shares the home folder."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
