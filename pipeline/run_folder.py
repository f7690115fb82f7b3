"""The folder of a run: where everything lies, and the lock that keeps a second command out."""

import contextlib
import dataclasses
import fcntl
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from pipeline.disk import disk_error
from training.errors import BadInput, TheodoliteError

STAGES = ("base", "sft", "reward", "ppo")
CRASH_NOTE = "the traceback is in "


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageFolder:
    """The files of one stage.

    Attributes:
        path: `<run>/<stage>`.
    """

    path: Path

    @property
    def checkpoint(self) -> Path:
        """What a gate attests and the next stage reads."""
        return self.path / "checkpoint"

    @property
    def unrecorded(self) -> Path:
        """A checkpoint that is written and not yet on record."""
        return self.path / "checkpoint.new"

    def quarantined(self, digest: str) -> Path:
        """Where a checkpoint that failed its gate waits, out of the way of whoever copies `checkpoint`."""
        return self.path / "quarantine" / digest.removeprefix("sha256:")[:12]

    @property
    def state(self) -> Path:
        """The full training state, for an exact resume."""
        return self.path / "state"

    @property
    def metrics(self) -> Path:
        """One JSON object a step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluation(self) -> Path:
        """What the stage measured on held-out data."""
        return self.path / "evaluation.json"

    @property
    def gate(self) -> Path:
        """The folder of the gate behind this stage."""
        return self.path / "gate"

    @property
    def verdict(self) -> Path:
        """The gate's verdict."""
        return self.gate / "verdict.json"

    @property
    def gate_report(self) -> Path:
        """The gate's measurements."""
        return self.gate / "report.json"

    @property
    def samples(self) -> Path:
        """What the gate's prompts were answered with."""
        return self.gate / "samples.jsonl"

    @property
    def rewards(self) -> Path:
        """What a reward model gave the replies of SFT's gate, at its own."""
        return self.gate / "rewards.jsonl"

    @property
    def page(self) -> Path:
        """The gate's measurements, for people."""
        return self.gate / "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run's folder and the paths inside it.

    Attributes:
        path: The folder, absolute.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> "RunFolder":
        """Makes the folder, or takes an existing one, and makes sure that it can be written.

        Raises:
            BadInput: It is a file, lies below one, or is read-only.
        """
        absolute = Path(path).expanduser().absolute()
        try:
            absolute.mkdir(parents=True, exist_ok=True)
            probe = absolute / f".writable.{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            reason = f"{error.strerror}; choose another with out=DIR"
            raise BadInput(f"cannot write the run folder {path}: {reason}") from error
        return cls(path=absolute.resolve())

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Takes the folder of an existing run.

        Raises:
            BadInput: There is no such folder, or no run in it.
        """
        folder = cls(path=Path(path).expanduser().absolute().resolve())
        if not folder.path.is_dir():
            raise BadInput(f"there is no run folder {path}")
        if not (folder.config.is_file() or folder.ledger.is_file()):
            raise BadInput(f"{path} is not the folder of a run: it has neither run.yaml nor ledger.jsonl")
        return folder

    @property
    def config(self) -> Path:
        """The resolved config, versions and seeds."""
        return self.path / "run.yaml"

    @property
    def ledger(self) -> Path:
        """The hash-chained events."""
        return self.path / "ledger.jsonl"

    @property
    def data(self) -> Path:
        """JSONL files written from the data packages."""
        return self.path / "data"

    @property
    def summary(self) -> Path:
        """Results of every stage, for scripts."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """Results of every stage, for people."""
        return self.path / "report.html"

    @property
    def junit(self) -> Path:
        """Every clause of every gate, for what reads JUnit's XML."""
        return self.path / "junit.xml"

    @property
    def card(self) -> Path:
        """The model card of the last stage that was gated."""
        return self.path / "model_card.md"

    @property
    def crash(self) -> Path:
        """The traceback of the last command that crashed."""
        return self.path / "crash.txt"

    def stage(self, name: str) -> StageFolder:
        """The files of one stage.

        Raises:
            BadInput: `name` is not one of STAGES.
        """
        if name not in STAGES:
            raise BadInput(f"unknown stage {name!r}: the stages are {', '.join(STAGES)}")
        return StageFolder(path=self.path / name)

    def inside(self, relative: str | Path) -> Path:
        """A path below the run folder, symlinks followed.

        Raises:
            BadInput: It would lie outside.
        """
        target = (self.path / relative).resolve()
        if not target.is_relative_to(self.path.resolve()):
            raise BadInput(f"{relative} lies outside the run folder {self.path}")
        return target

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other commands out of this run; a crash inside leaves its traceback in the folder.

        The lock belongs to the process: it is free again when the process ends, however it ends.

        Raises:
            BadInput: Another process has the run, or a file in it may not be written.
            DiskFull: There is no more room.
        """
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise BadInput(f"cannot lock the run folder {self.path}: {error.strerror}") from error
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = file.read().decode("ascii", "replace").strip() or "unknown"
                raise BadInput(
                    f"the run folder {self.path} is in use by another command (process {holder}); "
                    "wait for it, or choose another folder with out=DIR"
                ) from error
            try:
                file.truncate(0)
                file.write(str(os.getpid()).encode())
                yield
            except TheodoliteError:
                raise
            except Exception as error:
                if expected := disk_error(error):
                    raise expected from error
                self._keep_traceback(error)
                raise
            finally:
                file.truncate(0)

    def _keep_traceback(self, error: Exception) -> None:
        try:
            self.crash.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        except OSError:  # what is to be reported is the crash
            return
        error.add_note(f"{CRASH_NOTE}{self.crash}")
