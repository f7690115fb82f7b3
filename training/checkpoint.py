"""Training states on disk: orbax, with a digest of contents that every restore verifies."""

import errno
import gc
import hashlib
import inspect
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from training.errors import BadInput
from training.files import write_whole

# What orbax logs as an error it raises too, and a log of it would be a stack trace beside the one line.
logging.getLogger("absl").setLevel(logging.CRITICAL)
# Orbax reads arrays in asyncio tasks and forgets those beside the one that failed, which asyncio then reports at exit.
logging.getLogger("asyncio").setLevel(logging.CRITICAL)

_ADVICE = (
    "delete that folder and give the same command again: it goes on from the state before it, or from the start where "
    "none was kept (save_total_limit)"
)

# Parameters are written as they fill files of this size. Orbax's own size, two gigabytes, would stand in memory first.
DATA_FILE_BYTES = 64 * 2**20


def require_one_process() -> None:
    """Refuses to read or write for several processes: each would hold a part of the arrays and write the same files.

    Raises:
        BadInput: when JAX runs in more than one.
    """
    if jax.process_count() > 1:
        raise BadInput(
            f"this is one of {jax.process_count()} processes that share their devices, and runs and checkpoints are of "
            "one process: start it on one host, without jax.distributed.initialize"
        )


def content_digest(tree: Any) -> str:
    """SHA-256 over the sorted (path, dtype, shape, raw bytes) of a tree's arrays: what is stored, not how.

    Raises:
        BadInput: when several processes share the arrays.
    """
    require_one_process()
    digest = hashlib.sha256()
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    for path in sorted(leaves):
        array = np.ascontiguousarray(_on_host(leaves[path]))
        digest.update(f"{path}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return "sha256:" + digest.hexdigest()


def _on_host(leaf: Any) -> np.ndarray:
    """A leaf's numbers; np.asarray would leave a copy of a sharded one within it, for as long as it lives."""
    if not isinstance(leaf, jax.Array):
        return np.asarray(leaf)
    array = np.empty(leaf.shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        array[shard.index] = np.asarray(shard.data)
    return array


class StateStore:
    """Numbered training states below one folder; the newest whole one is where a run goes on."""

    def __init__(self, folder: Path, *, keep: int = 1):
        """Opens or makes the folder; remains of an interrupted save are removed.

        Raises:
            BadInput: when several processes would write to it.
        """
        require_one_process()
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves a state with a JSON description, which gets the digest of the contents."""
        _require_room(self.folder, state)
        meta = {**meta, "content_digest": content_digest(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._manager.save(step, args=args)
        self._manager.wait_until_finished()

    def restore(self, step: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """Restores a state with the shapes, dtypes and shardings of `like`.

        Raises:
            BadInput: when the state is damaged, incomplete, or of another model.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        wanted = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        restored = _read(
            lambda: self._manager.restore(step, args=wanted),
            f"the training state {self.folder}/{step} is damaged or of another model",
            advice=f"; {_ADVICE}",
        )
        if content_digest(restored["state"]) != restored["meta"].get("content_digest"):
            raise BadInput(f"the training state {self.folder}/{step} has changed since it was saved; {_ADVICE}")
        return restored["state"], restored["meta"]

    def close(self) -> None:
        """Releases orbax's threads."""
        self._manager.close()


def latest_step(folder: Path) -> int | None:
    """The newest step saved below a StateStore's folder, or None when it was never reached or nothing was saved."""
    if not folder.exists():
        return None
    store = StateStore(folder)
    try:
        return store.latest()
    finally:
        store.close()


def save_params(folder: Path, params: Any) -> None:
    """Writes parameters to a new orbax folder.

    Raises:
        BadInput: when several processes would write to it.
    """
    require_one_process()
    _require_room(folder.absolute().parent, params)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        args = ocp.args.PyTreeSave(params, ocdbt_target_data_file_size=DATA_FILE_BYTES)
        checkpointer.save(folder.absolute(), args=args)


def _require_room(folder: Path, tree: Any) -> None:
    """Refuses to begin what the disk cannot take: orbax's threads would each print a traceback of their own.

    Raises:
        OSError: ENOSPC.
    """
    # Beside its bytes each array has a description, in blocks of a file system.
    if sum(leaf.nbytes + 4096 for leaf in jax.tree.leaves(tree)) > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def restore_params(folder: Path, like: Any) -> Any:
    """Reads parameters with the shapes and dtypes of `like`, whatever mesh wrote them.

    Each device gets its part of what `like` has a sharding for, straight from the files; all else goes to one device.

    Raises:
        BadInput: when the folder is damaged, incomplete, or of another model.
    """
    # Without a sharding orbax asks for the very devices that the parameters were saved from.
    here = SingleDeviceSharding(jax.local_devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like)
    with ocp.StandardCheckpointer() as checkpointer:
        return _read(
            lambda: checkpointer.restore(folder.absolute(), like),
            f"the parameters in {folder} are damaged or of another model",
        )


def _read(restore: Callable[[], Any], problem: str, *, advice: str = "") -> Any:
    """What `restore` returns; BadInput with the problem and its reason when orbax fails."""
    try:
        return restore()
    except Exception as error:  # orbax raises a bare Exception for truncated data
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    _collect_unfinished_reads()
    raise BadInput(f"{problem}: {reason}{advice}")


def _collect_unfinished_reads(*, seconds: float = 5.0) -> None:
    """Collects, in silence, the reads that orbax drops unfinished beside one that failed.

    Each would print a traceback of its own whenever Python came upon it. Those whose bytes are still under way are held
    by a thread of tensorstore, for as long as that takes.
    """
    complain, sys.unraisablehook = sys.unraisablehook, lambda _: None
    end = time.monotonic() + seconds
    try:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
            gc.collect()
            while _unfinished_reads() and time.monotonic() < end:
                time.sleep(0.01)
                gc.collect()
    finally:
        sys.unraisablehook = complain


def _unfinished_reads() -> bool:
    return any(inspect.iscoroutine(each) and "orbax" in each.cr_code.co_filename for each in gc.get_objects())


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_whole(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
