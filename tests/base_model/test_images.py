import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from base_model import images
from base_model.images import load_image, resize
from training.errors import BadInput


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, picture):
    (tmp_path / "data" / "images").mkdir(parents=True)
    (tmp_path / "data" / "images" / "a.png").write_bytes(encoded(picture()))
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    return tmp_path / "data"


def test_every_way_to_give_a_picture(folder, picture):
    content = encoded(picture())
    given = [
        "images/a.png",
        content,
        picture(),
        Image.fromarray(picture()),
        {"bytes": content, "path": None},
        {"bytes": None, "path": "images/a.png"},
        picture().tolist(),  # as an array comes back from a file
    ]
    for value in given:
        np.testing.assert_array_equal(load_image(value, folder), picture())


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "1"):
        buffer = io.BytesIO()
        Image.new(mode, (5, 4)).save(buffer, "PNG")
        assert load_image(buffer.getvalue(), tmp_path).shape == (4, 5, 3)


@pytest.mark.parametrize(("orientation", "turned"), [(3, 2), (6, 1), (8, 3)])
def test_a_picture_of_a_camera_held_sideways_stands_upright(tmp_path, orientation, turned):
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.rot90(upright, turned))
    stored.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(load_image("a.png", tmp_path), upright)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(load_image(opened, tmp_path), upright)


@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "/etc/hostname"])
def test_a_path_out_of_the_folder_is_refused(folder, name):
    with pytest.raises(BadInput, match="leads out of"):
        load_image(name, folder)


def test_a_link_out_of_the_folder_is_refused(folder):
    (folder / "images" / "link.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(BadInput, match="leads out of"):
        load_image("images/link.png", folder)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("images/b.png", "does not exist"),
        ("images", "cannot be decoded"),
        ("a\0.png", "NUL"),
        (b"GIF89a, or not", "cannot be decoded"),
        (b"", "cannot be decoded"),
        (7, "not int"),
        ({"bytes": None, "path": None}, "not NoneType"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.full((4, 4, 3), 256).tolist(), r"not int64 \[4, 4, 3\]"),
        (np.full((4, 4, 3), -1).tolist(), "int64"),
        ([[[0, 0, 0]], [[0, 0]]], "given as lists of numbers cannot be read"),
        ([], "float64"),
        ([{"bytes": b""}], "object"),
    ],
)
def test_what_is_no_picture_is_refused(folder, value, message):
    with pytest.raises(BadInput, match=message):
        load_image(value, folder)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_a_truncated_picture_is_refused(folder, picture, kind):
    content = encoded(np.tile(picture(), (8, 8, 1)), kind)
    for kept in (len(content) // 2, 30):
        with pytest.raises(BadInput, match="cannot be decoded"):
            load_image(content[:kept], folder)


def test_damaged_bytes_are_refused_or_decoded_but_never_crash(folder, picture):
    content, rng, outcomes = encoded(picture()), np.random.default_rng(0), Counter()
    for _ in range(200):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            image = load_image(bytes(damaged), folder)
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size
            outcomes["decoded"] += 1
        except BadInput as error:
            assert "an image given as bytes" in str(error)
            outcomes["refused"] += 1
    assert outcomes.total() == 200 and outcomes["decoded"] and outcomes["refused"]


def test_a_huge_picture_is_refused_before_it_is_decoded(folder, picture, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 255)
    with pytest.raises(BadInput, match="16 x 16 pixels; the limit is 255"):
        load_image(encoded(picture()), folder)


def test_resizing_squashes_to_a_square_and_leaves_the_right_size_alone(picture):
    assert resize(np.zeros((7, 31, 3), np.uint8), 16).shape == (16, 16, 3)
    assert resize(picture(), 16) is not None
    np.testing.assert_array_equal(resize(picture(), 16), picture())
    flat = np.full((40, 9, 3), 77, np.uint8)
    np.testing.assert_array_equal(resize(flat, 8), np.full((8, 8, 3), 77))
