"""Progress of long work: a bar on a terminal, plain lines in a log.

    with progress("SFT", total=400) as advance:
        for batch in batches:
            advance(1, loss=loss)

Metrics are kept as given and read only when something is drawn: a device array is not waited for at every step.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, cast, runtime_checkable

# How often a log gets a line: every ten seconds, or every tenth of the work, but not in a flood.
_SECONDS_BETWEEN_LINES = 10.0
_LEAST_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_DRAWINGS = 0.2


@runtime_checkable
class Stream(Protocol):
    """Where to write: a file, stderr, or what a test puts in its place."""

    def write(self, text: str, /) -> int:
        """Takes text."""
        ...

    def flush(self) -> None:
        """Passes it on."""
        ...

    def isatty(self) -> bool:
        """Whether a person is looking."""
        ...


@runtime_checkable
class Advance(Protocol):
    """What `progress` hands out."""

    def __call__(self, steps: int = 1, **metrics: Any) -> None:
        """Counts `steps` as done; each metric is a number (or a scalar array) to show from now on."""
        ...


@contextlib.contextmanager
def progress(
    title: str,
    total: int | None = None,
    *,
    done: int = 0,
    stream: Stream | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Advance]:
    """Shows how far a piece of work is, how long it will take, and its latest metrics.

    Args:
        title: What is being done, in a word or two.
        total: How many steps there are; None if unknown.
        done: How many of them an earlier run did; what is left is foretold from the others.
        stream: Where to; stderr if None, so that results on stdout stay clean.
        clock: Seconds, for tests.

    Yields:
        A function `advance(steps=1, **metrics)`.
    """
    out: Stream = sys.stderr if stream is None else stream
    show = _bar(title, total, done, out, clock) if out.isatty() else _lines(title, total, done, out, clock)
    with show as advance:
        yield advance


@contextlib.contextmanager
def _lines(
    title: str, total: int | None, done: int, stream: Stream, clock: Callable[[], float]
) -> Iterator[Advance]:
    start = last = clock()
    before = shown = done
    latest: dict[str, Any] = {}

    def line(now: float, end: str = "") -> None:
        nonlocal last, shown
        last, shown = now, done
        status = _status(done, total, now - start, latest, ended=bool(end), before=before)
        stream.write(f"{title}: {status}{end}\n")
        stream.flush()

    def advance(steps: int = 1, **metrics: Any) -> None:
        nonlocal done
        done += steps
        latest.update(metrics)
        now = clock()
        a_tenth = total is not None and (done * 10) // max(total, 1) > (shown * 10) // max(total, 1)
        due = now - last >= (_LEAST_SECONDS_BETWEEN_LINES if a_tenth else _SECONDS_BETWEEN_LINES)
        if due and done != total:  # the last line is written below
            line(now)

    try:
        yield advance
    except BaseException:
        line(clock(), ", stopped")
        raise
    line(clock(), ", done")


@contextlib.contextmanager
def _bar(
    title: str, total: int | None, done: int, stream: Stream, clock: Callable[[], float]
) -> Iterator[Advance]:
    # rich takes 0.1 s to import, which a command that only prints a line should not pay
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    latest: dict[str, Any] = {}
    drawn = clock()
    with Progress(*columns, console=Console(file=cast(IO[str], stream)), refresh_per_second=5) as bar:
        task = bar.add_task(title, total=total, completed=done, metrics="")

        def advance(steps: int = 1, **metrics: Any) -> None:
            nonlocal drawn
            latest.update(metrics)
            bar.advance(task, steps)
            if clock() - drawn >= _SECONDS_BETWEEN_DRAWINGS:
                drawn = clock()
                bar.update(task, metrics=_metrics(latest))

        yield advance
        bar.update(task, metrics=_metrics(latest))


def _status(
    done: int, total: int | None, seconds: float, latest: dict[str, Any], *, ended: bool, before: int
) -> str:
    parts = [f"{done} steps" if total is None else f"{done}/{total}", _duration(seconds)]
    if total and before < done < total and not ended:
        parts.append(f"about {_duration(seconds * (total - done) / (done - before))} left")
    if latest:
        parts.append(_metrics(latest))
    return ", ".join(parts)


def _metrics(latest: dict[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in latest.items())


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
