from dataclasses import replace

import drawings
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_world import Killed, as_rows, killed_at, turn

import base_model.image_tokenizer_training
from base_model.image_tokenizer import ImageTokenizer, structure_of
from base_model.image_tokenizer_config import AutoencoderConfig
from base_model.image_tokenizer_training import Pictures, assess, figures, relative_error, train, usage
from training.errors import BadInput
from training.metrics import read_metrics


def test_what_was_learned_is_given_back(image_tokenizer):
    for name, picture in drawings.PICTURES.items():
        codes = image_tokenizer.encode(picture)
        assert len(codes) == 16 and all(0 <= code < 36 for code in codes)
        again = image_tokenizer.decode(codes)
        assert again.shape == (16, 16, 3) and again.dtype == np.uint8
        assert drawings.nearest(again) == name


def test_the_loss_is_the_error_over_the_variance_of_each_picture(image_tokenizer):
    structure, pictures = structure_of(image_tokenizer.config), drawings.as_pictures().images
    total, count = relative_error(structure, image_tokenizer.params, jnp.asarray(pictures))["loss"]
    autoencoder = nnx.merge(structure, image_tokenizer.params)
    expected = 0.0
    for picture in pictures:
        wanted = picture / 127.5 - 1
        given_back = autoencoder.decode(autoencoder.encode(jnp.asarray(picture[None])))[0]
        error = np.square(np.asarray(given_back) - wanted).mean()
        variance = np.mean([wanted[..., channel].var() for channel in range(3)])
        expected += error / (variance + 0.01)
    assert count == len(pictures) and float(total) == pytest.approx(expected, rel=1e-4)


def test_a_run_that_was_killed_goes_on_to_the_same_tokenizer(image_tokenizer, tmp_path, monkeypatch):
    config, pictures = replace(drawings.TRAINING, output_dir=str(tmp_path)), drawings.as_pictures()
    run = lambda: train(config, drawings.AUTOENCODER, pictures, pictures)  # noqa: E731
    with monkeypatch.context() as patch:
        order = base_model.image_tokenizer_training.batch_indices
        patch.setattr(base_model.image_tokenizer_training, "batch_indices", killed_at(40, order))
        with pytest.raises(Killed):
            run()
        patch.undo()
        assert len(read_metrics(tmp_path / "metrics.jsonl")) < 60 and not (tmp_path / "checkpoint").exists()
        assert run().digest == image_tokenizer.digest
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 61))
    losses = [line["loss"] for line in lines]  # a batch with the plain picture has the higher one
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) / 4
    assert {"eval_psnr", "eval_perplexity", "eval_used"} <= set(lines[-1])


def test_a_folder_holds_the_tokenizer_and_shows_damage(image_tokenizer, tmp_path):
    image_tokenizer.save(tmp_path / "saved")
    loaded = ImageTokenizer.load(tmp_path / "saved")
    assert loaded.digest == image_tokenizer.digest and loaded.config == image_tokenizer.config
    with pytest.raises(BadInput, match="exists already"):
        loaded.save(tmp_path / "saved")
    other = jax.tree.map(lambda leaf: leaf * 1.1, image_tokenizer.params)
    assert replace(image_tokenizer, params=other).digest != loaded.digest
    path = tmp_path / "saved" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    with pytest.raises(BadInput, match="changed or damaged"):
        ImageTokenizer.load(tmp_path / "saved")


def test_another_model_is_no_image_tokenizer(tmp_path):
    from pipeline.config import shipped_model

    with pytest.raises(BadInput, match="fields|image tokenizer"):
        ImageTokenizer.load(shipped_model())


@pytest.mark.parametrize(("codes", "reason"), [([0] * 15, "16 codes, not 15"), ([0] * 15 + [36], "between 0 and 35")])
def test_codes_that_are_no_picture(image_tokenizer, codes, reason):
    with pytest.raises(BadInput, match=reason):
        image_tokenizer.decode(codes)


@pytest.mark.parametrize(
    "sizes", [{"levels": (1, 5)}, {"levels": (256, 256, 256)}, {"image_size": 36}, {"channels": ()}]
)
def test_sizes_that_do_not_fit(sizes):
    with pytest.raises(BadInput):
        AutoencoderConfig(**sizes)


def test_figures_of_known_pictures(image_tokenizer):
    pictures = drawings.as_pictures()
    quality, codes = assess(image_tokenizer, pictures.images, batch_size=3)
    for picture, own, psnr in zip(pictures.images, codes, quality, strict=True):
        assert own.tolist() == image_tokenizer.encode(picture)
        error = np.square(image_tokenizer.decode(own.tolist()).astype(float) - picture).mean()
        assert psnr == pytest.approx(10 * np.log10(255**2 / error))
    found = figures(image_tokenizer, pictures)
    assert set(found) == {"all", "shapes", "mats"} and found["mats"]["psnr"] == pytest.approx(quality[3])
    assert found["all"]["psnr"] == pytest.approx(quality.mean())


def test_usage_of_codes():
    assert usage(np.array([[0, 1], [2, 3]]), 8) == {"perplexity": pytest.approx(4), "used": 0.5}
    assert usage(np.zeros((5, 5), int), 8) == {"perplexity": pytest.approx(1), "used": 0.125}


def test_pictures_of_rows_count_once_and_small_sources_as_often_more(write_rows, tmp_path):
    from PIL import Image

    from training.dataset import read_rows

    for number in range(7):
        Image.fromarray(np.full((8, 8, 3), 30 * number, np.uint8)).save(tmp_path / f"{number}.png")
    about = lambda number: [{"role": "user", "content": [{"type": "image", "image": f"{number}.png"}]}]  # noqa: E731
    rows = [{"messages": about(number), "source": "many"} for number in (0, 1, 2, 3, 4, 5, 0, 1)]
    rows += [{"messages": about(6), "source": "few"}, {"messages": [{"role": "user", "content": "no picture"}]}]
    pictures = Pictures.read(read_rows(write_rows(rows)), 16)
    assert pictures.images.shape == (7, 16, 16, 3) and pictures.images[:, 0, 0, 0].tolist() == list(range(0, 210, 30))
    assert pictures.balanced().tolist() == [0, 1, 2, 3, 4, 5] + [6] * 6
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    noise[:, :3], noise[:, -3:] = 0, 0  # alike where NumPy prints them
    noise[:, :, :3], noise[:, :, -3:] = 0, 0
    held = as_rows({"messages": [turn("hello", [picture])]} for picture in (*noise, noise[0].copy()))
    assert len(Pictures.read(held, 16).images) == 2
    shown = lambda **part: [{"role": "user", "content": [{"type": "image", **part}]}]  # noqa: E731
    for messages in (None, ["hello"], [{"role": "user"}], shown(), shown(image=None), shown(image="none.png")):
        with pytest.raises(BadInput, match="^rows:1: "):
            Pictures.read(as_rows([{"messages": messages}]), 16)
    with pytest.raises(BadInput, match="no row shows a picture"):
        Pictures.read(read_rows(write_rows([{"messages": []}], "none.jsonl")), 16)
