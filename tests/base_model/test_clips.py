import io

import numpy as np
import pytest

from base_model import clips
from base_model.clips import load_clip, sample, stamp
from training.errors import BadInput

av = pytest.importorskip("av")

MAKES = {"mp4": "libx264", "webm": "libvpx-vp9", "avi": "mpeg4", "mkv": "libx264", "gif": "gif", "ts": "libx264"}


def shade(number):
    """A frame that is told from others by its grey: darker on the left, and each number brighter."""
    frame = np.full((48, 64, 3), 20 + 5 * number, np.uint8)
    frame[:, 32:] += 60
    return frame


def encoded(frames, fps=10, kind="mp4", times=None):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format={"mkv": "matroska", "ts": "mpegts"}.get(kind, kind)) as container:
        stream = container.add_stream(MAKES[kind], rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "rgb8" if kind == "gif" else "yuv420p"
        stream.bit_rate = 4_000_000  # enough for greys to stay what they are
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if times is None else times[number]
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def three_seconds():
    return encoded([shade(number) for number in range(30)])


@pytest.fixture
def folder(tmp_path, three_seconds):
    (tmp_path / "data" / "clips").mkdir(parents=True)
    (tmp_path / "data" / "clips" / "a.mp4").write_bytes(three_seconds)
    (tmp_path / "secret.mp4").write_bytes(three_seconds)
    return tmp_path / "data"


def numbers(clip):
    """Which of the shades the frames show."""
    return [round((frame[:, :24].mean() - 20) / 5) for frame in clip.frames.astype(float)]


def test_every_way_to_give_a_clip(folder, three_seconds):
    frames = np.stack([shade(number) for number in range(30)])
    given = [
        "clips/a.mp4",
        three_seconds,
        {"bytes": three_seconds, "path": None},
        {"bytes": None, "path": "clips/a.mp4"},
        {"array": frames, "fps": 10},
        {"array": frames.tolist(), "fps": 10},  # as it comes back from a file
    ]
    for value in given:
        clip = load_clip(value, folder)
        assert clip.frames.dtype == np.uint8 and clip.frames.shape == (3, 48, 64, 3)
        assert numbers(clip) == [0, 10, 20]
        np.testing.assert_allclose(clip.seconds, [0, 1, 2], atol=1e-3)


@pytest.mark.parametrize("kind", MAKES)
def test_a_made_clip_comes_back(folder, kind):
    clip = load_clip(encoded([shade(number) for number in range(30)], kind=kind), folder, rate=2.5)
    np.testing.assert_allclose(clip.seconds, np.arange(8) * 0.4, atol=2e-3)
    assert numbers(clip) == list(range(0, 30, 4))
    right, left = clip.frames[:, :, 40:].mean(), clip.frames[:, :, :24].mean()
    assert 50 < right - left < 70


def test_uneven_times_are_kept(folder):
    times = [0, 1, 2, 3, 17, 30, 31]
    clip = load_clip(encoded([shade(3 * n) for n in range(7)], times=times), folder, rate=1)
    # At 0, 1, 2 and 3 seconds stand the frames of 0, 0.3, 1.7 and 3 seconds.
    assert [round(second, 3) for second in clip.seconds] == [0, 0.3, 1.7, 3]
    assert numbers(clip) == [0, 9, 12, 15]


def test_more_frames_than_allowed_are_spread_over_the_clip(folder, three_seconds):
    clip = load_clip(three_seconds, folder, rate=10, max_frames=4)
    assert numbers(clip) == [0, 7, 15, 22]
    np.testing.assert_allclose(clip.seconds, [0, 0.7, 1.5, 2.2], atol=1e-3)
    assert numbers(load_clip(three_seconds, folder, rate=100)) == list(np.arange(30))


def test_a_frame_is_chosen_by_what_is_on_screen():
    thirty = np.arange(300) / 30
    np.testing.assert_array_equal(sample(thirty, rate=1, max_frames=32), np.arange(0, 300, 30))
    # The published video processor's choice: so many frames, from the start of as many equal parts.
    np.testing.assert_array_equal(sample(thirty, rate=30, max_frames=32), np.arange(32) * 300 // 32)
    np.testing.assert_array_equal(sample(np.array([0.0]), rate=1, max_frames=32), [0])
    np.testing.assert_array_equal(sample(np.array([0.0, 0.01]), rate=1, max_frames=32), [0])
    np.testing.assert_array_equal(sample(np.array([0.0, 5.0]), rate=1, max_frames=3), [0, 1])
    # Times that a container rounded are still those of half a second and a second.
    np.testing.assert_array_equal(sample(np.array([0.0, 0.5003, 1.0004, 1.5]), rate=2, max_frames=8), [0, 1, 2, 3])


def test_stamps_are_minutes_and_seconds():
    expected = {0: "00:00", 59.99: "00:59", 61: "01:01", 3599.5: "59:59", 6000: "100:00"}
    assert {seconds: stamp(seconds) for seconds in expected} == expected


def test_a_camera_held_upright_is_shown_upright(folder, three_seconds):
    content = bytearray(three_seconds)
    # The matrix of the track's header, which says: turn by a quarter, clockwise.
    place = content.index(b"tkhd") + 4 + 40
    assert content[place : place + 4] == bytes.fromhex("00010000")
    turned = [0, 1, 0, -1, 0, 0, 0, 0]
    content[place : place + 32] = b"".join((65536 * number).to_bytes(4, "big", signed=True) for number in turned)
    upright, turned = load_clip(three_seconds, folder), load_clip(bytes(content), folder)
    np.testing.assert_array_equal(turned.frames, np.rot90(upright.frames, -1, axes=(1, 2)))


@pytest.mark.parametrize("name", ["../secret.mp4", "clips/../../secret.mp4", "/etc/hostname", "clips/link.mp4"])
def test_a_path_out_of_the_folder_is_refused(folder, name):
    (folder / "clips" / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    with pytest.raises(BadInput, match="the video path .* leads out of"):
        load_clip(name, folder)


BLACK = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("clips/b.mp4", "does not exist"),
        ("clips", "cannot be decoded"),
        ("a\0.mp4", "NUL"),
        (b"ftyp, or not", "cannot be decoded: Invalid data"),
        (b"", "cannot be decoded"),
        (7, "not int"),
        (BLACK, "with its fps, not ndarray"),
        ({"bytes": None, "path": None}, "not NoneType"),
        ({"array": BLACK}, "needs its fps.* has None"),
        ({"array": BLACK, "fps": 0}, "has 0"),
        ({"array": BLACK, "fps": float("nan")}, "has nan"),
        ({"array": BLACK[0], "fps": 2}, r"not uint8 \[4, 4, 3\]"),
        ({"array": BLACK.astype(float), "fps": 2}, "not float64"),
        ({"array": BLACK[:0], "fps": 2}, r"not uint8 \[0, 4, 4, 3\]"),
        ({"array": "frames", "fps": 2}, "not str"),
        ({"array": [[1], [1, 2]], "fps": 2}, "given as lists of numbers cannot be read"),
        (b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n", "cannot be decoded: Invalid data"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "cannot be decoded: Invalid argument"),
    ],
    # Files made here hold the time: as names of tests they would differ between processes.
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_what_is_no_clip_is_refused(folder, value, message):
    with pytest.raises(BadInput, match=message):
        load_clip(value, folder)


def test_a_sound_is_no_clip(folder):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 16_000, 0
        for packet in (*stream.encode(frame), *stream.encode()):
            container.mux(packet)
    with pytest.raises(BadInput, match="has no pictures in it that can be decoded"):
        load_clip(buffer.getvalue(), folder)


def test_limits_name_what_is_given(folder, three_seconds, monkeypatch):
    monkeypatch.setattr(clips, "MAX_SECONDS", 2)
    for value in (three_seconds, {"array": np.stack([BLACK[0]] * 30), "fps": 10}):
        with pytest.raises(BadInput, match="lasts 3 s; the limit is 2 s"):
            load_clip(value, folder)
    monkeypatch.setattr(clips, "MAX_SECONDS", 4)
    monkeypatch.setattr(clips, "MAX_PIXELS", 3000)
    with pytest.raises(BadInput, match="frames of 3,072 pixels; the limit is 3,000"):
        load_clip(three_seconds, folder)


def test_a_clip_that_is_cut_off_is_refused(folder, three_seconds):
    with pytest.raises(BadInput, match="cannot be decoded"):
        load_clip(three_seconds[: len(three_seconds) // 2], folder)
