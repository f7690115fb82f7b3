"""Pictures to codes and back, and pictures from words, through the command line."""

import drawings
import numpy as np
import pytest
from PIL import Image
from tiny_world import one_layer

from base_model import checkpoint
from base_model.image_tokenizer import ImageTokenizer
from pipeline import cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The four pictures as files; commands are given there."""
    for name, pixels in drawings.PICTURES.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return cli.main(["base", *map(str, words)])


def picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image)


def test_trained_encoded_and_decoded(in_process, folder, write_rows, capsys):
    shown = [{"messages": [{"role": "user", "content": [{"type": "image", "image": f"{name}.png"}]}], "source": name}
             for name in drawings.PICTURES]  # fmt: skip
    rows = write_rows(shown)
    options = ["autoencoder.image_size=16", "autoencoder.channels=[6,8]", "autoencoder.levels=[4,3,3]",
               "training.max_steps=2", "training.per_device_train_batch_size=4"]  # fmt: skip
    assert run("image-tokenizer", "train", f"data={rows}", f"held_out={rows}", "out=run", *options) == 0
    said = capsys.readouterr().out
    assert "all        PSNR" in said and "red square PSNR" in said and "of the codes used, perplexity" in said
    trained = ImageTokenizer.load(folder / "run" / "checkpoint")
    assert (trained.config.codes, trained.config.length) == (36, 16)
    assert run("image-tokenizer", "encode", "blue.png", "tokenizer=run/checkpoint") == 0
    codes = capsys.readouterr().out
    assert list(map(int, codes.split())) == trained.encode(drawings.PICTURES["blue"])
    (folder / "codes.txt").write_text(codes)
    words = ("image-tokenizer", "decode", "codes.txt", "tokenizer=run/checkpoint")
    assert run(*words, "out=new/back.png") == 0
    np.testing.assert_array_equal(picture("new/back.png"), trained.decode(list(map(int, codes.split()))))
    capsys.readouterr()
    for text, out, reason in (
        ("1 2 3", "b.png", "a picture has 16 codes, not 3"), ("1 two", "b.png", "codes are whole numbers"),
        (codes.replace(codes.split()[0], "36", 1), "b.png", "between 0 and 35"), (codes, "b.jpg", "is written as PNG"),
    ):  # fmt: skip
        (folder / "codes.txt").write_text(text)
        assert run(*words, f"out={out}") == 2
        assert reason in capsys.readouterr().err and not (folder / out).exists()
    (folder / "none.png").write_bytes(b"none")
    assert run("image-tokenizer", "encode", "none.png") == 2
    assert "none.png cannot be decoded" in capsys.readouterr().err


def test_drawn(in_process, folder, tiny_model, image_tokenizer, capsys):
    model = one_layer(tiny_model)
    checkpoint.save(drawings.drawing(model, image_tokenizer), folder / "model")
    words = ("draw", "prompt=a red square", "checkpoint=model")
    assert run(*words, "out=pictures/a.png", "copies=2") == 0
    assert picture("pictures/a-0.png").shape == picture("pictures/a-1.png").shape == (16, 16, 3)
    assert run(*words, "out=a.gif") == 2
    assert "is written as PNG" in capsys.readouterr().err
    checkpoint.save(model, folder / "blind")
    assert run("draw", "prompt=a red square", "checkpoint=blind") == 2
    assert "this model does not draw" in capsys.readouterr().err and not (folder / "picture.png").exists()
