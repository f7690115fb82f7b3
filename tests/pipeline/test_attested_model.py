"""What takes a file's place between a checkpoint's check and its reading is refused before it is opened."""

import os

import pytest

from pipeline import attested_model
from pipeline.attested_model import load_listed
from training.digest import bytes_digest, manifest
from training.errors import Refused


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "params/weights"])
@pytest.mark.parametrize("swap", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.with_suffix(".old")), None])
def test_what_is_no_file_any_more(tmp_path, monkeypatch, name, swap):
    """A pipe would keep its reader waiting; a folder, a link or nothing is not what was listed either."""

    def never(*arguments, **options):
        raise AssertionError("opened")

    monkeypatch.setattr(attested_model.checkpoint, "load", never)
    folder = tmp_path / "checkpoint"
    (folder / "params").mkdir(parents=True)
    for file in ("config.json", "tokenizer.model", "params/weights"):
        (folder / file).write_text("{}")
    entries = manifest(folder)
    (folder / name).rename((folder / name).with_suffix(".old"))
    if swap is not None:
        swap(folder / name)
    with pytest.raises(Refused, match=f"between its check and its reading: {name} is no regular file any more"):
        load_listed(folder, entries)


@pytest.mark.parametrize("listed", [True, False])
def test_the_description_that_is_read_is_the_listed_one(tmp_path, monkeypatch, listed):
    """Its digest goes to whoever reads; one that lies there by then and was not listed is none that could be read."""
    read = []
    monkeypatch.setattr(attested_model.checkpoint, "load", lambda folder, **options: read.append(options["attested"]))
    (tmp_path / "tokenizer.model").write_text("x")
    if listed:
        (tmp_path / "config.json").write_text("{}")
    entries = manifest(tmp_path)
    (tmp_path / "config.json").write_text('{"another": 1}')
    load_listed(tmp_path, entries)
    assert read == [bytes_digest(b"{}") if listed else "none"]
