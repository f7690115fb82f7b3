"""Pictures from rows: decoding, limits, and the size that the encoder wants."""

import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from base_model.paths import inside
from training.errors import BadInput

MAX_PIXELS = 40_000_000

# Pillow would try some forty kinds: hand PostScript to another program, and print what is odd about a TIFF.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")


def load_image(value: Any, folder: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a picture given by relative path, bytes, a hub row's `{"bytes", "path"}`, or an array.

    Raises:
        BadInput: when the file is missing, outside `folder`, truncated, none of FORMATS, or above MAX_PIXELS.
    """
    if isinstance(value, list):
        value = array_of(value, "an image")
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
            raise BadInput(f"an image array is uint8 [height, width, 3], not {value.dtype} {list(value.shape)}")
        return value
    if isinstance(value, Image.Image):
        return _rgb(value, "an image")
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return _decode_file(inside(folder, value, "image"))
    if isinstance(value, bytes):
        return _decode(value, "an image given as bytes")
    raise BadInput(f"an image is a path, bytes or an array, not {type(value).__name__}")


def array_of(numbers: list[Any], name: str) -> np.ndarray:
    """The array that lists in lists stand for, as files give it back; uint8 if its numbers are whole and fit.

    Raises:
        BadInput: when the lists are not of equal length.
    """
    try:
        array = np.asarray(numbers)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{name} given as lists of numbers cannot be read: {error}") from error
    fits = array.dtype.kind == "i" and array.size and array.min() >= 0 and array.max() <= 255
    return array.astype(np.uint8) if fits else array


@lru_cache(maxsize=8192)  # data sets ask several questions about one picture
def _decode_file(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    return _decode(path, path.name)


def _decode(value: bytes | Path, name: str) -> UInt8[np.ndarray, "H W 3"]:
    try:
        # Damage that Pillow only warns of would be a second line beside the error, or one beside none.
        with warnings.catch_warnings(action="ignore"):
            with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value, formats=FORMATS) as image:
                return _rgb(image, name)
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"the image {value} does not exist") from error
    except Exception as error:  # Pillow's decoders raise whatever their arithmetic stumbles over
        reason = getattr(error, "strerror", None) or error  # without the path, which a row may have made very long
        raise BadInput(f"the image {name:.80} cannot be decoded: {reason}") from error


def _rgb(image: Image.Image, name: str) -> UInt8[np.ndarray, "H W 3"]:
    if not 0 < image.width * image.height <= MAX_PIXELS:
        raise BadInput(f"{name} has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
    # Cameras held sideways store what their sensor saw, and how to turn it.
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def resize(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The picture squashed to a square of `size` pixels, bilinear."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
