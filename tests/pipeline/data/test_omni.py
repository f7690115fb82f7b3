"""Rows with sounds, clips and drawings: what is asked has one right answer, and it is the one that is given."""

import io
import json
import wave

import numpy as np

from pipeline.data import omni, pictures
from pipeline.data.omni import clip_rows, described, drawing_rows, sound_rows, write_omni_data
from pipeline.data.pictures import Emoji, Question
from pipeline.data.sounds import RATE, SYLLABLES, TONES, beeps, speech, wav


def asked(picture, question, answer):
    return Question(picture=picture, question=question, answer=answer)


QUESTIONS = [
    asked("images/0.png", "what color is the circle?", "red"),
    asked("images/0.png", "is there a blue triangle?", "no"),
    asked("images/1.png", "what shape is in the image?", "triangle"),
    asked("images/2.png", "what is the teal shape?", "rectangle"),
    asked("images/3.png", "what shape does the image contain?", "circle"),
    asked("images/3.png", "what is the color of the shape?", "gray"),
]
SHOWN = {"images/0.png": "red circle", "images/2.png": "teal rectangle", "images/3.png": "gray circle"}


def test_what_pictures_show_is_what_their_questions_tell():
    assert described(QUESTIONS) == SHOWN


def test_drawings_are_the_assistants():
    rows = drawing_rows(SHOWN, [Emoji(name="cat", picture="images/cat.png")])
    assert [row["messages"][0]["content"] for row in rows][::3] == ["Draw a red circle.", "Draw: cat."]
    assert rows[3]["messages"][1] == {"role": "assistant", "content": [{"type": "image", "image": "images/cat.png"}]}
    assert [row["source"] for row in rows] == ["draw-shapes"] * 3 + ["draw-emoji"]


def test_questions_about_clips_are_answered_by_their_frames():
    rows = clip_rows(SHOWN, 40, np.random.default_rng(0))
    lengths = set()
    for row in rows:
        clip, question = row["messages"][0]["content"]
        frames = clip["video"]["frames"]
        assert clip["video"]["seconds"] == [float(second) for second in range(len(frames))]
        place = {"What is shown first?": 0, "What is shown last?": -1}[question["text"]]
        assert row["messages"][1]["content"] == SHOWN[frames[place]]
        lengths.add(len(frames))
    assert lengths == {2, 3}


def loud(sound, low, high):
    """How much of a sound lies between two frequencies."""
    power = np.abs(np.fft.rfft(sound)) ** 2
    place = np.fft.rfftfreq(len(sound), 1 / RATE)
    return power[(place > low) & (place < high)].sum() / power.sum()


def test_beeps_have_the_pitch_and_the_number_of_their_name():
    rng = np.random.default_rng(0)
    for _ in range(30):
        sound = beeps(rng)
        number, pitch, timbre, _ = sound.name.split()
        assert loud(sound.wave, 0.9 * TONES[pitch], 1.1 * TONES[pitch]) > 0.6
        envelope = np.convolve(np.abs(sound.wave), np.ones(480) / 480, "same") > 0.08
        starts = (np.diff(envelope.astype(int)) == 1).sum() + envelope[0]
        assert starts == {"one": 1, "two": 2, "three": 3}[number]
        assert bool(loud(sound.wave, 2.5 * TONES[pitch], 8000) > 0.03) == (timbre == "harsh")


def test_syllables_differ_to_the_ear():
    rng = np.random.default_rng(0)
    sounds = [speech(rng) for _ in range(60)]
    single = {sound.name: sound.wave for sound in sounds if len(sound.name) == 2}
    assert set(single) <= set(SYLLABLES) and len(single) > 5
    for name, sound in single.items():
        assert bool(loud(sound, 0, 500) > 0.2) == (name[1] != "a"), name
        assert bool(loud(sound, 2000, 3500) > 0.2) == (name[1] == "i"), name
    assert max(len(sound.wave) for sound in sounds) < 1.2 * RATE


def test_files_are_the_same_every_time(tmp_path, monkeypatch):
    def packaged(out):
        for name in ("pretrain", "pretrain_heldout"):
            (out / f"{name}.jsonl").write_text(json.dumps({"messages": [], "source": "chitchat"}) + "\n")

    monkeypatch.setattr(omni, "write_packaged_data", packaged)
    monkeypatch.setattr(pictures, "questions", lambda out, split: QUESTIONS)
    monkeypatch.setattr(pictures, "emojis", lambda out: [Emoji(name="cat", picture="images/cat.png")])
    few = {"beeps": 2, "speech": 3, "clips": 4}
    monkeypatch.setattr(omni, "COUNTS", {"train": few, "test": few})
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        counts = write_omni_data(tmp_path / folder)
    assert counts["omni: speech"] == 3 and counts["omni_heldout: clips"] == 4 and counts["omni: chitchat"] == 1
    written = lambda folder: {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}  # noqa: E731
    files = written(tmp_path / "one")
    assert files == written(tmp_path / "other")
    assert len([path for path in files if path.suffix == ".wav"]) == 10
    train, heldout = ((tmp_path / "one" / f"{name}.jsonl").read_text() for name in ("omni", "omni_heldout"))
    assert "speech-train-0" in train and "speech-test-0" in heldout and "speech-train-0" not in heldout


def test_a_sound_row_names_its_file(tmp_path):
    row = sound_rows(tmp_path, "train", "beeps", 1, np.random.default_rng(3))[0]
    path = row["messages"][0]["content"][0]["audio"]
    again = beeps(np.random.default_rng(3))
    assert row["messages"][1]["content"] == again.name and (tmp_path / path).read_bytes() == wav(again.wave)
    with wave.open(io.BytesIO(wav(again.wave))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (RATE, 1, len(again.wave))
