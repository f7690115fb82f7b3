import numpy as np
import pytest
from golden_tower import golden

from base_model.log_mel import log_mel, mel_filters


@pytest.fixture(scope="module")
def stored():
    return golden("gemma4_e", "preprocess")


def test_features_equal_the_published_front_end(stored):
    for number in (1, 2):
        expected = stored["audio/input_features"][number - 1][stored["audio/input_features_mask"][number - 1]]
        np.testing.assert_allclose(log_mel(stored[f"wave_{number}"]), expected, atol=1e-4)


def test_filters_equal_the_published_ones(stored):
    np.testing.assert_allclose(mel_filters(128), stored["audio/mel_filters"], atol=1e-6)


def test_features_equal_a_sum_over_samples_and_frequencies():
    wave = np.random.default_rng(0).normal(0, 0.1, 700).astype(np.float32)
    found = log_mel(wave, 8)
    assert found.shape == (4, 8)
    padded = np.concatenate([np.zeros(160), wave])
    for frame in range(4):
        piece = [padded[160 * frame + n] * np.sin(np.pi * n / 320) ** 2 for n in range(320)]
        spectrum = [abs(sum(x * np.exp(-2j * np.pi * k * n / 512) for n, x in enumerate(piece))) for k in range(257)]
        np.testing.assert_allclose(found[frame], np.log(np.array(spectrum) @ mel_filters(8) + 1e-3), atol=1e-5)


def test_a_tone_is_loudest_in_the_band_of_its_frequency():
    for hertz in (300, 1000, 4000):
        wave = np.sin(2 * np.pi * hertz * np.arange(8000) / 16_000).astype(np.float32)
        loudest = log_mel(wave, 40)[5:-5].argmax(1)
        centre = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 42)[1:-1]
        assert (loudest == np.abs(centre - 2595 * np.log10(1 + hertz / 700)).argmin()).all()


def test_a_frame_takes_one_sample_more_than_its_window():
    for samples, frames in ((0, 0), (160, 0), (161, 1), (320, 1), (321, 2), (16_000, 99)):
        assert log_mel(np.zeros(samples, np.float32)).shape == (frames, 128)
