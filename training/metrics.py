"""Metrics of a run: one JSON line a step, TensorBoard events beside it."""

import json
import math
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.record_writer import RecordWriter

from training.files import write_whole

# TensorBoard's events reach the disk after so many seconds, or when the run ends.
FLUSH_SECONDS = 30.0


class MetricsWriter:
    """Appends to metrics.jsonl in a folder; use as a context manager."""

    def __init__(self, folder: Path, *, after_step: int):
        """Opens the file and drops lines beyond `after_step`, which a run wrote that was then interrupted."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= after_step]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        # Without tensorboardX's own thread, which would die of a full disk, and the run wait for it for ever.
        (folder / "tensorboard").mkdir(exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._events = RecordWriter(str(folder / "tensorboard" / name))
        self._event(file_version="brain.Event:2")
        # What another session wrote from here on does not count.
        self._event(step=after_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._flushed = time.monotonic()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line; values that are not finite stand as null, for JSON has no word for them."""
        clean = {name: (float(value) if math.isfinite(value) else None) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in metrics.items()]
        self._event(step=step, summary=Summary(value=values))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._events.flush()
            self._flushed = time.monotonic()

    def _event(self, *, step: int = 0, **what: Any) -> None:
        self._events.write(Event(wall_time=time.time(), step=step, **what).SerializeToString())

    def __enter__(self) -> "MetricsWriter":
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes both files."""
        try:
            self._file.close()
        finally:
            self._events.close()


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl, up to one that was cut short by a kill or damaged."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(line))
        except (ValueError, RecursionError):
            break
        if not isinstance(lines[-1], dict) or type(lines[-1].get("step")) is not int:
            lines.pop()
            break
    return lines
