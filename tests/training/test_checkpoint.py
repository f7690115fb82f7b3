import jax
import numpy as np
import pytest

from training.checkpoint import StateStore, content_digest, save_params
from training.errors import BadInput


@pytest.mark.parametrize(
    "touch",
    [
        StateStore,
        lambda folder: save_params(folder, {"a": np.ones(2)}),
        lambda folder: content_digest({"a": np.ones(2)}),
    ],
    ids=["state", "parameters", "digest"],
)
def test_several_processes_are_refused_before_anything_is_written(tmp_path, monkeypatch, touch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(BadInput, match="one of 4 processes .* without jax.distributed.initialize"):
        touch(tmp_path / "a")
    assert not list(tmp_path.iterdir())
