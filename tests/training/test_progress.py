import io

import pytest

from training.progress import progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(total: int | None, steps: int, seconds_a_step: float, done: int = 0) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    with progress("SFT", total, done=done, stream=stream, clock=clock) as advance:
        for step in range(steps):
            clock.now += seconds_a_step
            advance(1, loss=2.0 / (step + 1))
    return stream.getvalue().splitlines()


def test_a_line_every_tenth_of_the_work() -> None:
    lines = run(total=40, steps=40, seconds_a_step=1.0)
    assert len(lines) == 10
    assert lines[0] == "SFT: 4/40, 4 s, about 36 s left, loss 0.5"
    assert lines[-1] == "SFT: 40/40, 40 s, loss 0.05, done"


def test_slow_work_gets_a_line_every_ten_seconds() -> None:
    lines = run(total=1000, steps=30, seconds_a_step=5.0)
    assert lines[0] == "SFT: 2/1000, 10 s, about 1 h 23 min left, loss 1"
    assert lines[1] == "SFT: 4/1000, 20 s, about 1 h 23 min left, loss 0.5"
    assert lines[-1] == "SFT: 30/1000, 2 min 30 s, loss 0.06667, done"
    assert len(lines) == 16


def test_fast_work_does_not_flood() -> None:
    assert run(total=1000, steps=1000, seconds_a_step=0.0004) == ["SFT: 1000/1000, 0 s, loss 0.002, done"]


def test_what_is_left_is_foretold_from_the_steps_of_this_run() -> None:
    lines = run(total=1000, steps=10, seconds_a_step=10.0, done=900)
    assert lines[0] == "SFT: 901/1000, 10 s, about 16 min 30 s left, loss 2"
    assert lines[-1] == "SFT: 910/1000, 1 min 40 s, loss 0.2, done"


def test_an_unknown_total() -> None:
    lines = run(total=None, steps=3, seconds_a_step=6.0)
    assert lines == ["SFT: 2 steps, 12 s, loss 1", "SFT: 3 steps, 18 s, loss 0.6667, done"]


def test_no_work_at_all() -> None:
    assert run(total=0, steps=0, seconds_a_step=1.0) == ["SFT: 0/0, 0 s, done"]


def test_an_error_is_not_called_done() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), progress("SFT", 10, stream=stream) as advance:
        advance(3)
        raise KeyboardInterrupt
    assert stream.getvalue().endswith(", stopped\n")
    assert "done" not in stream.getvalue()


def test_metrics_are_read_only_when_a_line_is_due() -> None:
    class Metric:
        reads = 0

        def __float__(self) -> float:
            Metric.reads += 1
            return 1.0

    with progress("SFT", 100, stream=io.StringIO(), clock=Clock()) as advance:
        for _ in range(100):
            advance(1, loss=Metric())
    assert Metric.reads == 1


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with progress("SFT", 5, stream=stream) as advance:
        for _ in range(5):
            advance(1, loss=0.5)
    assert "5/5" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
