"""The code that a verdict was decided with."""

from pathlib import Path

import pytest

import pipeline
from pipeline import versions


def test_the_digest_is_of_every_package(monkeypatch):
    """The sampler stands in base_model, the trainers in theirs: all of them decide what a gate sees."""
    seen = []
    monkeypatch.setattr(versions, "source_digest", lambda roots: seen.extend(roots) or "sha256:x")
    versions._own_digest.__wrapped__()
    names, root = ("training", "base_model", "sft", "reward", "safety", "ppo", "pipeline"), Path(pipeline.__file__)
    assert seen == [root.parents[1] / name for name in names]


@pytest.mark.parametrize("change", ["edit", "add", "rename", "move", "data"])
def test_any_change_of_a_source_changes_it(tmp_path, change):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "a.py").write_text("a = 1\n")
        (folder / "b.jsonl").write_text("{}\n")
        (folder / "notes.txt").write_text("x")
    before = versions.source_digest([one, other])
    (one / "notes.txt").write_text("y")
    assert versions.source_digest([one, other]) == before
    {
        "edit": lambda: (other / "part" / "a.py").write_text("a = 2\n"),
        "add": lambda: (one / "c.py").touch(),
        "rename": lambda: (one / "part" / "a.py").rename(one / "part" / "b.py"),
        "move": lambda: (one / "part" / "a.py").rename(one / "a.py"),
        "data": lambda: (one / "b.jsonl").write_text("[]\n"),
    }[change]()
    assert versions.source_digest([one, other]) != before


def test_versions_of_what_scores_and_decides():
    """scipy makes the bounds, tokenizers reads text for a scorer; extras stand there only if they are installed."""
    found = versions.deciding_versions()
    assert {"theodolite", "code", "jax", "scipy", "scikit-learn", "tokenizers"} <= found.keys()
    assert found["code"].startswith("sha256:")
