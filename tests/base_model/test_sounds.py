import io
import sys

import numpy as np
import pytest

from base_model import sounds
from base_model.sounds import load_sound
from training.errors import BadInput

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")


def tone(hertz=440, seconds=0.5, rate=16_000):
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples, rate=16_000, kind="WAV", subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def pitch(wave, rate=16_000):
    """The loudest frequency, in hertz."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 17))
    return spectrum.argmax() * rate / (1 << 17)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data" / "sounds").mkdir(parents=True)
    (tmp_path / "data" / "sounds" / "a.wav").write_bytes(encoded(tone(), subtype="FLOAT"))
    (tmp_path / "secret.wav").write_bytes(encoded(tone()))
    return tmp_path / "data"


def test_every_way_to_give_a_sound(folder):
    content = encoded(tone(), subtype="FLOAT")
    given = [
        "sounds/a.wav",
        content,
        {"bytes": content, "path": None},
        {"bytes": None, "path": "sounds/a.wav"},
        {"array": tone(), "sampling_rate": 16_000},
        {"array": tone().astype(np.float64).tolist(), "sampling_rate": 16_000, "path": "a.wav"},
        {"array": np.stack([tone(), tone()], 1), "sampling_rate": 16_000},
    ]
    for value in given:
        wave = load_sound(value, folder)
        assert wave.dtype == np.float32
        np.testing.assert_array_equal(wave, tone())


def test_integers_are_read_on_the_scale_of_floats(folder):
    for kind, scale in ((np.int16, 2**15), (np.int32, 2**31)):
        wave = load_sound({"array": (tone() * scale).astype(kind), "sampling_rate": 16_000}, folder)
        np.testing.assert_allclose(wave, tone(), atol=1e-4)
    np.testing.assert_allclose(load_sound(encoded(tone(), subtype="PCM_16"), folder), tone(), atol=1e-4)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("hertz", [220, 3_000])
def test_resampling_keeps_a_tone(folder, rate, hertz):
    wave = load_sound({"array": tone(hertz, rate=rate), "sampling_rate": rate}, folder)
    assert abs(len(wave) - 8_000) <= 1 and abs(pitch(wave) - hertz) < 1
    np.testing.assert_allclose(np.sqrt((wave[500:-500] ** 2).mean()), 0.5 / np.sqrt(2), rtol=0.01)


def test_resampling_leaves_out_what_16_khz_cannot_hold(folder):
    wave = load_sound({"array": tone(12_000, rate=48_000), "sampling_rate": 48_000}, folder)
    assert np.abs(wave[500:-500]).max() < 1e-3


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_channels_become_their_mean_whatever_the_format(folder, kind):
    left, right = tone(440, rate=44_100), tone(2_000, rate=44_100)
    wave = load_sound(encoded(np.stack([left, right], 1), 44_100, kind), folder)
    assert abs(len(wave) - 8_000) <= 1
    spectrum = np.abs(np.fft.rfft(wave))
    loud = sorted(np.argsort(spectrum)[-2:] * 16_000 / len(wave))
    np.testing.assert_allclose(loud, [440, 2_000], atol=3)


@pytest.mark.parametrize("name", ["../secret.wav", "sounds/../../secret.wav", "/etc/hostname", "sounds/link.wav"])
def test_a_path_out_of_the_folder_is_refused(folder, name):
    (folder / "sounds" / "link.wav").symlink_to(folder.parent / "secret.wav")
    with pytest.raises(BadInput, match="the audio path .* leads out of"):
        load_sound(name, folder)


ZEROS = np.zeros(20, np.float32)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("sounds/b.wav", "does not exist"),
        ("sounds", "cannot be decoded: Is a directory"),
        ("a\0.wav", "NUL"),
        (b"RIFF, or not", "cannot be decoded: Format not recognised"),
        (b"", "is empty"),
        (7, "not int"),
        (ZEROS, "with its sampling_rate, not ndarray"),
        ({"bytes": None, "path": None}, "not NoneType"),
        ({"array": ZEROS}, "needs a sampling_rate, 1000 to 384000 .* has None"),
        ({"array": ZEROS, "sampling_rate": 16_000.5}, "has 16000.5"),
        ({"array": ZEROS, "sampling_rate": 1}, "has 1"),
        ({"array": ZEROS.astype(np.uint8), "sampling_rate": 16_000}, r"not uint8 \[20\]"),
        ({"array": np.zeros((2, 2, 2)), "sampling_rate": 16_000}, r"not float64 \[2, 2, 2\]"),
        ({"array": [[0.0], [0.0, 1.0]], "sampling_rate": 16_000}, "cannot be read"),
        ({"array": [], "sampling_rate": 16_000}, r"not float64 \[0\]"),
        ({"array": np.array([0.1, np.nan]), "sampling_rate": 16_000}, "reaches nan; samples are finite"),
        ({"array": np.array([0.1, 1e300]), "sampling_rate": 16_000}, "reaches inf"),
        ({"array": np.array([0.1, 32_000.0]), "sampling_rate": 16_000}, "reaches 32000; .* between -1 and 1"),
        (encoded(ZEROS[:0]), "is empty"),
        (encoded(np.array([[np.inf, -np.inf]]), subtype="FLOAT"), "reaches nan"),
        (encoded(ZEROS, kind="AU"), "is AU; what is read is WAV"),
    ],
    # Files made here hold the time: as names of tests they would differ between processes.
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_is_no_sound_is_refused(folder, value, message):
    with pytest.raises(BadInput, match=message):
        load_sound(value, folder)


def test_a_sound_that_is_cut_off_is_refused_in_one_line(folder, capfd):
    for kind in ("FLAC", "MP3"):
        content = encoded(tone(seconds=2), kind=kind)
        with pytest.raises(BadInput, match="cut off|cannot be decoded"):
            load_sound(content[: len(content) // 2], folder)
    assert capfd.readouterr() == ("", "")


def test_a_long_sound_is_refused_before_it_is_decoded(folder, monkeypatch):
    monkeypatch.setattr(sounds, "MAX_SECONDS", 2)
    for value in (encoded(tone(seconds=3)), {"array": tone(seconds=3), "sampling_rate": 16_000}):
        with pytest.raises(BadInput, match="lasts 3 s; the limit is 2 s"):
            load_sound(value, folder)


def test_a_package_that_is_missing_is_named(folder, monkeypatch):
    for package, value in (("soundfile", "sounds/a.wav"), ("soxr", {"array": tone(), "sampling_rate": 8_000})):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(BadInput, match=f"need {package}, which is not installed: pip install"):
                load_sound(value, folder)
