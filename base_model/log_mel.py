"""Sound as Gemma 4's audio encoder hears it: the logarithm of energy in mel bands, a hundred times a second."""

from functools import cache

import numpy as np
from jaxtyping import Float, Float32

RATE = 16_000
WINDOW, HOP, SPECTRUM = 320, 160, 512  # samples: 20 ms, 10 ms, and the Fourier transform's length
FLOOR = 1e-3


def log_mel(wave: Float32[np.ndarray, " samples"], bands: int = 128) -> Float32[np.ndarray, "frames bands"]:
    """log(|Fourier transform of windowed frames| @ mel filters + 1e-3).

    Frame i is centred on sample 160 i, half of the first one on silence before the sound. It takes one sample more than
    its window for the sound to have that frame, a leftover of the published front end's pre-emphasis.

    Args:
        wave: mono, 16 kHz, in [-1, 1].
        bands: mel bands from 0 to 8 kHz.

    Returns:
        A row for each frame that lies whole in the sound; none when it has fewer than 161 samples.
    """
    wave = np.pad(wave, (WINDOW // 2, 0))
    if len(wave) <= WINDOW:
        return np.zeros((0, bands), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(wave[:-1], WINDOW)[::HOP]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    magnitude = np.abs(np.fft.rfft(frames * hann, SPECTRUM))
    return np.log(magnitude @ mel_filters(bands) + FLOOR).astype(np.float32)


@cache
def mel_filters(bands: int) -> Float[np.ndarray, "frequencies bands"]:
    """Triangles of height one, evenly spaced and half overlapping on the mel scale 2595 log10(1 + hertz / 700).

    Args:
        bands: how many, from 0 to 8 kHz.

    Returns:
        The weight of each of the spectrum's 257 frequencies in each band.
    """
    hertz = np.linspace(0, RATE / 2, SPECTRUM // 2 + 1)
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (hertz[:, None] - left) / (middle - left)
    falling = (right - hertz[:, None]) / (right - middle)
    return np.maximum(0, np.minimum(rising, falling))
