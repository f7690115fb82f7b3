"""Sounds by formula, each with its name: tones, and syllables of a pulse train through three formants."""

import io
import wave
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

RATE = 16_000
TONES = {"low": 220.0, "middle": 660.0, "high": 1760.0}
TIMBRES = ("soft", "harsh")
NUMBERS = ("one", "two", "three")
# Resonances in Hz and consonants, far enough apart to be told by ear.
VOWELS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}
CONSONANTS = ("m", "s", "t")
SYLLABLES = tuple(consonant + vowel for consonant in CONSONANTS for vowel in VOWELS)


@dataclass(frozen=True, kw_only=True)
class NamedSound:
    """A sound and what there is to hear."""

    name: str
    wave: Float32[np.ndarray, " samples"]


def beeps(rng: np.random.Generator) -> NamedSound:
    """One to three tones of one pitch, a sine or a square wave."""
    number, timbre = int(rng.integers(3)), TIMBRES[rng.integers(2)]
    pitch = list(TONES)[rng.integers(3)]
    time = np.arange(int(rng.uniform(0.12, 0.2) * RATE)) / RATE
    tone = np.sin(2 * np.pi * TONES[pitch] * rng.uniform(0.94, 1.06) * time)
    tone = _faded(tone if timbre == "soft" else np.sign(tone) * 0.6)
    pause = np.zeros(int(rng.uniform(0.06, 0.1) * RATE))
    sound = np.concatenate([part for _ in range(number + 1) for part in (tone, pause)])
    return NamedSound(
        name=f"{NUMBERS[number]} {pitch} {timbre} beep{'s' if number else ''}", wave=_recorded(sound, rng)
    )


def speech(rng: np.random.Generator) -> NamedSound:
    """One to three syllables of one voice."""
    said = [SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=rng.integers(1, 4))]
    pitch = rng.uniform(95, 230)
    sound = np.concatenate([part for syllable in said for part in (_syllable(syllable, pitch, rng), np.zeros(480))])
    return NamedSound(name=" ".join(said), wave=_recorded(sound, rng))


def wav(sound: Float32[np.ndarray, " samples"]) -> bytes:
    """A WAV file of 16 bits."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def _syllable(syllable: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    vowel = _voiced(VOWELS[syllable[1]], pitch, rng.uniform(0.13, 0.18))
    if syllable[0] == "m":  # a hum behind closed lips
        return np.concatenate([_faded(0.4 * _voiced((250, 1000, 2200), pitch, 0.07)), _faded(vowel)])
    noise = rng.normal(size=int((0.09 if syllable[0] == "s" else 0.02) * RATE))
    hiss = 0.25 * np.diff(noise, prepend=0)  # louder towards high frequencies
    gap = np.zeros(480 if syllable[0] == "t" else 0)
    return np.concatenate([gap, _faded(hiss), _faded(vowel)])


def _voiced(formants: tuple[int, ...], pitch: float, seconds: float) -> np.ndarray:
    """A sum of the pitch's multiples, each as strong as the resonances near it let through."""
    time, sound = np.arange(int(seconds * RATE)) / RATE, 0.0
    for number in range(1, int(4000 / pitch)):
        strengths = zip(formants, (1.0, 0.7, 0.3), strict=True)
        heard = sum(strength / (1 + ((number * pitch - formant) / 90) ** 2) for formant, strength in strengths)
        sound = sound + heard * np.sin(2 * np.pi * number * pitch * time)
    return np.asarray(sound) / max(1e-9, np.abs(sound).max())


def _faded(sound: np.ndarray) -> np.ndarray:
    """Begins and ends without a click."""
    edge = np.minimum(1, np.arange(len(sound)) / 120)
    return sound * edge * edge[::-1]


def _recorded(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At some loudness, with a little hiss and some silence before it."""
    silence = np.zeros(int(rng.uniform(0, 0.06) * RATE))
    heard = np.concatenate([silence, sound]) * rng.uniform(0.3, 0.8)
    return (heard + rng.normal(size=len(heard)) * 0.004).astype(np.float32)
