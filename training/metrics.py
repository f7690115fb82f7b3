"""Metrics of a run: one JSON line a step, TensorBoard events beside it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from training.files import write_whole


class MetricsWriter:
    """Appends to metrics.jsonl in a folder; use as a context manager."""

    def __init__(self, folder: Path, *, after_step: int):
        """Opens the file and drops lines beyond `after_step`, which a run wrote that was then interrupted."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= after_step]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self.path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1, flush_secs=30)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line; values that are not finite stand as null, for JSON has no word for them."""
        clean = {name: (float(value) if math.isfinite(value) else None) for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **clean}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._events.add_scalar(name, float(value), step)

    def __enter__(self) -> "MetricsWriter":
        """Itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Closes both files."""
        self._file.close()
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
