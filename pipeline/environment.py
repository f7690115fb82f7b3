"""What the process wants in its environment before jax and its neighbours are imported.

XLA's compiled programs are kept under the user's cache folder, so a second run starts in a fraction of the time.
`THEODOLITE_COMPILE_CACHE=off` turns that off, and whoever sets `JAX_COMPILATION_CACHE_DIR` keeps their own choice.
"""

import gc
import hashlib
import importlib.util
import os
import platform
import signal
import sys
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
    if importlib.util.find_spec("libtpu") and not _accelerated():
        # Installed for `theodolite tpu compile`; jax would have it look for a TPU, and it complains at length of none.
        environ.setdefault("JAX_PLATFORMS", "cpu")
    switched_off = environ.get(CACHE_SWITCH, "on").lower() in ("off", "0", "false", "no")
    on_cpu = environ.get("JAX_PLATFORMS", "cpu").lower() in ("", "cpu")
    if switched_off or not on_cpu or "JAX_COMPILATION_CACHE_DIR" in environ:
        return
    environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache_folder(environ))
    environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def open_standard_streams() -> None:
    """Gives a process that was started with a closed standard stream an empty one.

    Its number would go to the next file that is opened, such as a ledger, and warnings of libraries into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


# glibc gives the buffers of a training step back to the system and has to take them again, page by page, in the next:
# half of the processor's time where it was measured. These settings are read when a process starts.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


def keep_freed_memory(environ: MutableMapping[str, str]) -> None:
    """Starts this process anew with an allocator that keeps what is freed, unless it runs so already.

    Args:
        environ: `os.environ`; a user's own MALLOC_ settings are left alone.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in environ for name in ALLOCATOR):
        return
    sys.stdout.flush()
    # Python would answer Ctrl-C with a traceback while it starts; it waits until it can be answered in a line.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environ, **ALLOCATOR})


def give_back_freed_memory() -> None:
    """Returns to the system what `keep_freed_memory` has kept, for a stage that ends leaves gaps of no use to the next.

    Without it, a run's peak is not that of its largest stage but grows with the gaps.
    """
    import ctypes  # not before every command, help pages among them

    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _accelerated() -> bool:
    """Whether this machine has a TPU, or jax a plugin for another accelerator."""
    chips = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(chips) or importlib.util.find_spec("jax_plugins") is not None


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
