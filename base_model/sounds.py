"""Sounds from rows: decoding, limits, and the one channel of 16 kHz that the encoders want."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32

from base_model.extras import extra
from base_model.log_mel import RATE
from base_model.paths import inside
from training.errors import BadInput

MAX_SECONDS = 600
RATES = range(1_000, 384_001)

# libsndfile would try some twenty-five kinds, raw bytes and old samplers' among them.
FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "AIFF")

# A float sound stays within -1 and 1, or little beyond; one that does not is most often made of undivided integers.
LOUDEST = 8.0

# Channels are mixed down this many frames at a time, so that only their mean is ever held whole.
PIECE = 1 << 14


def load_sound(value: Any, folder: Path) -> Float32[np.ndarray, " samples"]:
    """Decodes a sound to 16 kHz mono.

    Args:
        value: a relative path, bytes, a hub row's `{"bytes", "path"}`, or `{"array", "sampling_rate"}`, its samples
            floats in [-1, 1] or integers of 16 or 32 bits, [samples] or [samples, channels].
        folder: where paths start.

    Raises:
        BadInput: when the file is missing, outside `folder`, damaged or none of FORMATS, and when the sound is empty,
            not finite or longer than MAX_SECONDS.
    """
    with np.errstate(all="ignore"):  # what is not finite is found in the end
        if isinstance(value, dict) and value.get("array") is not None:
            return _from_array(value["array"], value.get("sampling_rate"))
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return _decode(inside(folder, value, "audio"), f"the sound {value:.80}")
        if isinstance(value, bytes):
            return _decode(value, "a sound given as bytes")
    raise BadInput(f"a sound is a path, bytes, or an array with its sampling_rate, not {type(value).__name__}")


def require_room(wave: Float32[np.ndarray, " samples"], soft_tokens: int, most: int) -> None:
    """Says when a sound is too long, or too short, for a model.

    Raises:
        BadInput: when it takes more than `most` soft tokens, or none.
    """
    seconds = len(wave) / RATE
    if not soft_tokens:
        raise BadInput(f"a sound of {1000 * seconds:.1f} ms is too short to be heard; leave the row out")
    if soft_tokens > most:
        raise BadInput(
            f"a sound of {seconds:.1f} s takes {soft_tokens} soft tokens, and the model takes at most {most}; "
            "cut the sound"
        )


def _from_array(array: Any, rate: Any) -> Float32[np.ndarray, " samples"]:
    name = "a sound given as an array"
    try:
        samples = np.asarray(array)
    except (ValueError, OverflowError) as error:  # lists of unequal length
        raise BadInput(f"{name} cannot be read: {error}") from error
    known = samples.dtype.kind == "f" or samples.dtype in (np.int16, np.int32)
    if not known or samples.ndim not in (1, 2) or not samples.size:
        shape = f"{samples.dtype} {list(samples.shape)}"
        raise BadInput(f"{name} is float, int16 or int32 [samples] or [samples, channels], not {shape}")
    _require_limits(len(samples), rate, name)
    if samples.dtype.kind == "i":
        samples = samples / -float(np.iinfo(samples.dtype).min)
    mono = samples if samples.ndim == 1 else samples.mean(1)
    return _at_16_khz(mono.astype(np.float32), rate, name)


def _decode(value: bytes | Path, name: str) -> Float32[np.ndarray, " samples"]:
    soundfile = extra("soundfile")
    try:
        with _file(value) as stream, _silence():
            if not os.fstat(stream.fileno()).st_size:
                raise BadInput(f"{name} is empty")
            with soundfile.SoundFile(stream.fileno(), closefd=False) as file:
                if file.format not in FORMATS:
                    raise BadInput(f"{name} is {file.format}; what is read is {', '.join(FORMATS)}")
                _require_limits(file.frames, file.samplerate, name)
                pieces = [np.zeros(0, np.float32)]
                while len(piece := file.read(PIECE, dtype="float32", always_2d=True)):
                    pieces.append(piece.mean(1))
                samples, frames, rate = np.concatenate(pieces), file.frames, file.samplerate
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"the sound {value} does not exist") from error
    except Exception as error:  # whatever a damaged file brings up in the decoder and around it
        # libsndfile's words without the number of the file, or the system's without the path.
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise BadInput(f"{name} cannot be decoded: {reason}") from error
    if len(samples) != frames:
        raise BadInput(f"{name} is cut off: it says that it has {frames:,} samples and has {len(samples):,}")
    return _at_16_khz(samples, rate, name)


def _file(value: bytes | Path) -> IO[bytes]:
    """A file that the system knows: what libsndfile asks of a Python stream for a damaged one ends in stack traces."""
    if isinstance(value, Path):
        return value.open("rb")
    file = tempfile.TemporaryFile()
    file.write(value)
    file.seek(0)
    return file


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps what libmpg123 prints about an odd MP3 from standing beside the error, or beside none."""
    with open(os.devnull, "wb") as nowhere:
        stderr = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _require_limits(frames: int, rate: Any, name: str) -> None:
    if type(rate) is not int or rate not in RATES:
        limits = f"{RATES[0]} to {RATES[-1]} samples a second"
        raise BadInput(f"{name} needs a sampling_rate, {limits}, and has {rate!r:.40}")
    if frames > MAX_SECONDS * rate:
        raise BadInput(f"{name} lasts {frames / rate:,.0f} s; the limit is {MAX_SECONDS} s; cut it")


def _at_16_khz(given: Float32[np.ndarray, " given"], rate: int, name: str) -> Float32[np.ndarray, " samples"]:
    if not len(given):
        raise BadInput(f"{name} is empty")
    if not (loudest := np.abs(given).max()) <= LOUDEST:  # nor is NaN
        raise BadInput(f"{name} reaches {loudest:g}; samples are finite and, as floats, between -1 and 1")
    return given if rate == RATE else extra("soxr").resample(given, rate, RATE)
