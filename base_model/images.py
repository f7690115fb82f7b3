"""Pictures from rows: decoding, limits, and the size that the encoder wants."""

import io
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from training.errors import BadInput

MAX_PIXELS = 40_000_000


def load_image(value: Any, folder: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Decodes a picture given by relative path, bytes, a hub row's `{"bytes", "path"}`, or an array.

    Raises:
        BadInput: when the file is missing, outside `folder`, truncated, no picture, or above MAX_PIXELS.
    """
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise BadInput(f"an image array is uint8 [height, width, 3], not {value.dtype} {list(value.shape)}")
        return value
    if isinstance(value, Image.Image):
        return np.asarray(value.convert("RGB"))
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return _decode_file(_inside(folder, value))
    if isinstance(value, bytes):
        return _decode(value, "an image given as bytes")
    raise BadInput(f"an image is a path, bytes or an array, not {type(value).__name__}")


@lru_cache(maxsize=8192)  # data sets ask several questions about one picture
def _decode_file(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    return _decode(path, path.name)


def _decode(value: bytes | Path, name: str) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with Image.open(io.BytesIO(value) if isinstance(value, bytes) else value) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadInput(f"{name} has {image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise BadInput(f"the image {value} does not exist") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadInput(f"the image {name} cannot be decoded: {error}") from error


def _inside(folder: Path, name: str) -> Path:
    if "\0" in name:
        raise BadInput(f"the image path {name!r} has a NUL in it, which no file name can")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise BadInput(f"the image path {name} leads out of {folder}; keep media beside the data file")
    return path


def resize(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """The picture squashed to a square of `size` pixels, bilinear."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
