"""A disk that fills while metrics or a state are written: an error in the run's own thread; what was before stays."""

import errno
import resource
import struct
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from pipeline.disk import DiskFull, disk_error
from training.checkpoint import StateStore
from training.metrics import MetricsWriter, read_metrics


@contextmanager
def no_file_above(size):
    """The kernel takes so many bytes of a file and then no more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def events(folder):
    """The events of TensorBoard's files: length, its checksum, the event, its checksum."""
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_has_what_metrics_jsonl_has(tmp_path):
    with MetricsWriter(tmp_path, after_step=0) as writer:
        writer.write(1, {"loss": 2.5, "accuracy": 0.25})
        writer.write(2, {"loss": float("nan")})
    head, began, first, second = events(tmp_path)
    assert head.file_version == "brain.Event:2" and (began.step, began.session_log.status) == (1, 1)
    assert {value.tag: value.simple_value for value in first.summary.value} == {"loss": 2.5, "accuracy": 0.25}
    assert (first.step, second.step) == (1, 2) and np.isnan(second.summary.value[0].simple_value)
    assert read_metrics(tmp_path / "metrics.jsonl")[1] == {"step": 2, "loss": None}


@pytest.mark.parametrize("first_full", ["metrics.jsonl", "tensorboard"])
def test_metrics_that_the_disk_does_not_take(tmp_path, monkeypatch, first_full):
    """TensorBoard's file, which is flushed now and then, may be the first to find no room."""
    threads = threading.active_count()
    if first_full == "tensorboard":
        monkeypatch.setattr("training.metrics.FLUSH_SECONDS", 0.0)
        monkeypatch.setattr("training.metrics.json.dumps", lambda line: "{}")
    with no_file_above(2000), pytest.raises(OSError) as error, MetricsWriter(tmp_path, after_step=0) as writer:
        for step in range(1, 1000):
            writer.write(step, {"loss": 0.5, "a_longer_name_of_a_metric": 1.0})
    assert error.value.errno == errno.EFBIG and isinstance(disk_error(error.value), DiskFull)
    assert threading.active_count() == threads
    if first_full == "metrics.jsonl":
        kept = read_metrics(tmp_path / "metrics.jsonl")
        assert 10 < len(kept) == kept[-1]["step"]


def test_a_state_that_the_disk_does_not_take(tmp_path, monkeypatch):
    """There was room when it began, and then somebody else took it."""
    tree = {"a": np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32)}
    store = StateStore(tmp_path / "state")
    store.save(1, tree, {"identity": "a"})
    with no_file_above(20_000), pytest.raises(Exception) as error:  # noqa: B017 (orbax has many kinds)
        store.save(2, {"a": tree["a"] + 1}, {"identity": "a"})
    store.close()
    assert isinstance(disk_error(error.value), DiskFull), error.value
    again = StateStore(tmp_path / "state")
    assert again.latest() == 1
    np.testing.assert_array_equal(again.restore(1, tree)[0]["a"], tree["a"])
    again.save(2, tree, {"identity": "a"})
    assert again.latest() == 2
    again.close()
