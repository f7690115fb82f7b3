"""Video clips from rows: frames at a rate, and the second at which each is shown."""

import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from base_model.extras import extra
from base_model.images import array_of, load_image
from base_model.paths import inside
from training.errors import BadInput

MAX_SECONDS = 3600
MAX_PIXELS = 10_000_000

# FFmpeg would read some three hundred kinds, and in playlists the names of other files and hosts.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,ogg,gif"

# Containers round times to milliseconds.
ROUNDING = 5e-4


class Clip(NamedTuple):
    """Frames of one size, and when each is shown."""

    frames: UInt8[np.ndarray, "frames H W 3"]
    seconds: Float[np.ndarray, " frames"]


def load_clip(value: Any, folder: Path, *, rate: float = 1.0, max_frames: int = 32) -> Clip:
    """Decodes frames of a clip.

    Args:
        value: a relative path, bytes, a hub row's `{"bytes", "path"}`, `{"array", "fps"}` with all frames of a clip,
            uint8 [frames, height, width, 3], and how many a second has, or `{"frames", "seconds"}`: a list of pictures,
            see load_image, all of which are taken, and when each is shown.
        folder: where paths start.
        rate: frames a second.
        max_frames: of a clip that would have more at this rate, so many are taken, evenly.

    Raises:
        BadInput: when the file is missing, outside `folder`, damaged or none of FORMATS, and when the clip is empty,
            longer than MAX_SECONDS or has frames above MAX_PIXELS.
    """
    if isinstance(value, dict) and value.get("frames") is not None:
        return _from_pictures(value["frames"], value.get("seconds"), folder, max_frames)
    if isinstance(value, dict) and value.get("array") is not None:
        return _from_array(value["array"], value.get("fps"), rate, max_frames)
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return _decode(inside(folder, value, "video"), f"the clip {value:.80}", rate, max_frames)
    if isinstance(value, bytes):
        return _decode(value, "a clip given as bytes", rate, max_frames)
    raise BadInput(f"a clip is a path, bytes, or an array with its fps, not {type(value).__name__}")


def stamp(seconds: float) -> str:
    """Minutes and seconds, as they stand before a frame in the text."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def sample(shown: Float[np.ndarray, " frames"], *, rate: float, max_frames: int) -> Int[np.ndarray, " chosen"]:
    """Which frames to take: those on screen at 0, 1 / rate, 2 / rate, ... seconds, or at fewer times evenly.

    Args:
        shown: the second from which each frame is on screen, ascending from 0.
        rate: frames a second.
        max_frames: if there would be more, so many are spread over the whole clip.

    Returns:
        Numbers of frames, ascending, each once.
    """
    # The last frame is on screen as long as the others were on average.
    end = shown[-1] * len(shown) / max(1, len(shown) - 1)
    step = max(1 / rate, end / max_frames)
    times = np.arange(min(max_frames, math.ceil((end - ROUNDING) / step))) * step
    return np.unique([0, *np.searchsorted(shown, times + ROUNDING, side="right") - 1])


def _from_array(array: Any, fps: Any, rate: float, max_frames: int) -> Clip:
    wanted = "a clip given as an array is uint8 [frames, height, width, 3]"
    if isinstance(array, list):
        array = array_of(array, "a clip")
    if not isinstance(array, np.ndarray):
        raise BadInput(f"{wanted}, not {type(array).__name__}")
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3 or not array.size:
        raise BadInput(f"{wanted}, not {array.dtype} {list(array.shape)}")
    if type(fps) not in (int, float) or not 1e-3 <= fps <= 1e3:
        raise BadInput(f"a clip given as an array needs its fps, frames a second, and has {fps!r:.40}")
    shown = np.arange(len(array)) / fps
    _require_limits(shown[-1], array.shape[1] * array.shape[2], "a clip given as an array")
    chosen = sample(shown, rate=rate, max_frames=max_frames)
    return Clip(array[chosen], shown[chosen])


def _from_pictures(pictures: Any, seconds: Any, folder: Path, most: int) -> Clip:
    name = "a clip given as frames"
    if not isinstance(pictures, list) or not isinstance(seconds, list) or not 0 < len(pictures) == len(seconds):
        raise BadInput(f"{name} is a list of pictures and an equally long list of seconds")
    if len(pictures) > most:
        raise BadInput(f"{name} has {len(pictures)}, and the model takes at most {most}; give fewer")
    times = [second if type(second) in (int, float) else math.nan for second in seconds]
    if not all(0 <= second <= MAX_SECONDS for second in times) or times != sorted(times):
        raise BadInput(f"{name}: seconds rise from 0 to at most {MAX_SECONDS}, not {seconds!r:.60}")
    frames = [load_image(picture, folder) for picture in pictures]
    if len(shapes := {frame.shape[:2] for frame in frames}) > 1:
        raise BadInput(f"{name} has pictures of several sizes, {sorted(shapes)}; give them one")
    return Clip(np.stack(frames), np.array(times, float))


def _decode(value: bytes | Path, name: str, rate: float, max_frames: int) -> Clip:
    try:
        with _open(value) as container:
            video = next((stream for stream in container.streams.video if stream.codec_context), None)
            packets = container.demux(video) if video else []
            packets = [packet for packet in packets if packet.pts is not None and not packet.is_discard]
            if video is None or not packets:
                raise BadInput(f"{name} has no pictures in it that can be decoded")
            number, start = video.index, min(packet.pts for packet in packets)
            shown = np.array(sorted({(packet.pts - start) * float(packet.time_base) for packet in packets}))
            _require_limits(shown[-1], video.codec_context.width * video.codec_context.height, name)
        wanted = shown[sample(shown, rate=rate, max_frames=max_frames)]
        frames, seconds = [], []
        with _open(value) as container:
            video = container.streams[number]
            video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            for frame in container.decode(video):
                second = (frame.pts - start) * float(frame.time_base)
                if np.abs(second - wanted).min() < ROUNDING:
                    frames.append(_upright(frame))
                    seconds.append(second)
                if len(frames) == len(wanted):
                    break
        if len(frames) < len(wanted):
            raise BadInput(f"{name} is damaged: of {len(wanted)} frames {len(wanted) - len(frames)} cannot be decoded")
        return Clip(np.stack(frames), np.array(seconds))
    except BadInput:
        raise
    except FileNotFoundError as error:
        raise BadInput(f"the clip {value} does not exist") from error
    except Exception as error:  # whatever a damaged file brings up in the decoder and around it
        raise BadInput(f"{name} cannot be decoded: {getattr(error, 'strerror', None) or error}") from error


def _open(value: bytes | Path) -> Any:
    source = io.BytesIO(value) if isinstance(value, bytes) else str(value)
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    return extra("av").open(source, options=options, metadata_errors="replace")


def _upright(frame: Any) -> UInt8[np.ndarray, "H W 3"]:
    """The frame as it is to be shown; cameras held sideways say by how much it is turned."""
    return np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)


def _require_limits(seconds: float, pixels: int, name: str) -> None:
    if seconds > MAX_SECONDS:
        raise BadInput(f"{name} lasts {seconds:,.0f} s; the limit is {MAX_SECONDS} s; cut it")
    if pixels > MAX_PIXELS:
        raise BadInput(f"{name} has frames of {pixels:,} pixels; the limit is {MAX_PIXELS:,}")
