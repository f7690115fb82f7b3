"""Folder digests: stable, sensitive to every byte and name, and strict about links."""

import hashlib
import json
import os

import pytest

from training.digest import bytes_digest, file_digest, folder_digest, json_digest, manifest
from training.errors import BadInput


@pytest.fixture
def folder(tmp_path):
    """A small checkpoint-like folder."""
    root = tmp_path / "checkpoint"
    (root / "params").mkdir(parents=True)
    (root / "config.json").write_text("{}")
    (root / "params" / "a.bin").write_bytes(b"\x00\x01")
    return root


def test_golden():
    """SHA-256 of "abc" is in the standard."""
    assert bytes_digest(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert json_digest({"b": 1, "a": 2}) == json_digest({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        json_digest({"a": float("nan")})


def test_manifest_is_sorted_and_complete(folder):
    """Hidden files count too; paths are relative with slashes."""
    (folder / ".hidden").write_text("x")
    (folder / "z").touch()
    assert [(entry.path, entry.size) for entry in manifest(folder)] == [
        (".hidden", 1),
        ("config.json", 2),
        ("params/a.bin", 2),
        ("z", 0),
    ]


def test_a_folder_digest_by_hand(folder):
    """Path, size and SHA-256 of each file, sorted, as JSON without spaces: what others can compute."""
    rows = [["config.json", 2, hashlib.sha256(b"{}").hexdigest()],
            ["params/a.bin", 2, hashlib.sha256(b"\x00\x01").hexdigest()]]  # fmt: skip
    text = json.dumps(rows, separators=(",", ":"))
    assert folder_digest(folder) == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(("put", "why"), [("link", "cannot read"), ("pipe", "changed into something that is not a")])
def test_a_file_exchanged_while_it_is_looked_at(folder, tmp_path, monkeypatch, put, why):
    """Between the look at what it is and its opening: the link is not followed, the pipe not waited for."""
    real, place = os.open, folder / "params" / "a.bin"

    def exchanging(path, flags, *rest):
        if path == place:
            place.rename(tmp_path / "aside")
            place.symlink_to(tmp_path / "aside") if put == "link" else os.mkfifo(place)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", exchanging)
    with pytest.raises(BadInput, match=why):
        folder_digest(folder)


def test_the_last_byte_of_a_large_file_counts(tmp_path):
    """Larger than what is read at once."""
    content = bytes(3 * 2**20)
    for last in (b"0", b"1"):
        (tmp_path / "large").write_bytes(content + last)
        assert file_digest(tmp_path / "large") == "sha256:" + hashlib.sha256(content + last).hexdigest()


def test_digest_is_that_of_the_content_not_of_the_place(folder, tmp_path):
    """A copy elsewhere has the same digest, and so has a link to the folder."""
    before = folder_digest(folder)
    (tmp_path / "latest").symlink_to(folder)
    assert folder_digest(tmp_path / "latest") == before
    folder.rename(tmp_path / "moved")
    assert folder_digest(tmp_path / "moved") == before


@pytest.mark.parametrize("change", ["byte", "name", "added", "removed"])
def test_every_change_is_seen(folder, change):
    """Bytes, names and the set of files all matter."""
    before = folder_digest(folder)
    if change == "byte":
        (folder / "params" / "a.bin").write_bytes(b"\x00\x02")
    elif change == "name":
        (folder / "params" / "a.bin").rename(folder / "params" / "b.bin")
    elif change == "added":
        (folder / ".empty").touch()
    else:
        (folder / "config.json").unlink()
    assert folder_digest(folder) != before


def test_links_pipes_and_nothing_are_refused(folder, tmp_path):
    """A symbolic link to a file or folder, a pipe, a missing or an empty folder."""
    link = folder / "link"
    for target in (folder / "config.json", folder / "params"):
        link.symlink_to(target)
        with pytest.raises(BadInput, match="symbolic link"):
            folder_digest(folder)
        link.unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadInput, match="regular file"):
        folder_digest(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no files"):
        folder_digest(tmp_path / "empty")
    with pytest.raises(BadInput, match="wanted a folder to take a digest of, got .*config.json, which is not one"):
        folder_digest(folder / "config.json")
    for missing in (folder_digest, file_digest):
        with pytest.raises(BadInput):
            missing(tmp_path / "nowhere")
