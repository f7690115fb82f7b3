"""What a figure is made of: marks on a canvas, numbers as words, scales and axes.

Marks carry class names only, never colours: the page's style sheet knows the colours of light, dark and print. All
figures are 360 units wide, the width of a small phone, so that their lettering stays readable when several stand side
by side on a wide screen.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

WIDTH = 360
LEFT, RIGHT = 40.0, 350.0
HEIGHT = 178.0

Scale = Callable[[float], float]


class Mark(NamedTuple):
    """One SVG element: its tag, its attributes, and the text inside it."""

    tag: str
    attributes: Mapping[str, str | float]
    text: str = ""


class Table(NamedTuple):
    """The numbers behind a figure, as words to print."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Key(NamedTuple):
    """An entry of a figure's legend: a class name that colours it, and what it stands for."""

    style: str
    label: str


class Figure(NamedTuple):
    """A plot ready to be written down."""

    title: str
    unit: str
    description: str
    height: float
    marks: tuple[Mark, ...]
    table: Table
    legend: tuple[Key, ...] = ()


def number(value: float | None, digits: int = 3) -> str:
    """A number for a person: fewer digits after the point the larger it is, a true minus, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    if size < 1e-12:  # what rounding leaves of a zero
        return f"{0:.{digits}f}"
    places = digits if size < 10 else min(digits, 1) if size < 1000 else 0
    text = f"{value:.{places}f}"
    if size < 0.5 * 10**-places:
        text = f"{value:.0e}" if size < 1e-5 else f"{value:.{-math.floor(math.log10(size))}f}"
    return text.replace("-", "−")


def signed(value: float | None) -> str:
    """`number` with a plus before what is more than zero: for changes."""
    text = number(value)
    return f"+{text}" if value is not None and value > 0 and re.search("[1-9]", text) else text


def typeset(text: str) -> str:
    """A sentence of ours as it is printed: true minus signs, no line break before a per cent, digests cut short."""
    text = re.sub(r"(?<![\w.−-])-(?=\.?\d)", "−", text)
    text = re.sub(r"(?<=\de)-(?=\d)", "−", text)
    return re.sub(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}", r"\1…", text).replace(" %", "\u00a0%")


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """About `count` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.8)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """The linear map of [low, high] to [start, end]."""
    return lambda value: start + (value - low) / (high - low) * (end - start)


def log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """The map of [low, high], both above 0, to [start, end] by the logarithm."""
    inner = scale(*widened(math.log10(low), math.log10(high)), start, end)
    return lambda value: inner(math.log10(value))


def powers_of_ten(low: float, high: float) -> list[float]:
    """Those inside [low, high]; both ends where there is none."""
    found = [10.0**i for i in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]
    return found or [low, high]


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The smallest and the largest."""
    return min(values), max(values)


def widened(low: float, high: float) -> tuple[float, float]:
    """An interval of some length, for a scale."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def padded(low: float, high: float, *, exact: tuple[float, float] | None) -> tuple[float, float]:
    """A little air around what is drawn, except at an end that was asked for and reached."""
    low, high = widened(low, high)
    air = 0.05 * (high - low)
    bottom = low if exact is not None and low >= exact[0] else low - air
    top = high if exact is not None and high <= exact[1] else high + air
    return bottom, top


def y_axis(y: Scale, values: Sequence[float]) -> list[Mark]:
    """A grid line and a number at each value."""
    lines = [segment(LEFT, y(value), RIGHT, y(value), "grid") for value in values]
    return lines + [lettering(LEFT - 5, y(value) + 4, tick(value), "tick end") for value in values]


def x_axis(x: Scale, values: Sequence[float], y: float, *, top: float | None = None, label: str = "") -> list[Mark]:
    """A number below each value, with a grid line up to `top` if that is given, and the axis' name."""
    marks: list[Mark] = []
    for value in values:
        if top is not None:
            marks.append(segment(x(value), top, x(value), y, "grid"))
        marks.append(lettering(x(value), y + 15, tick(value), "tick middle"))
    if label:
        marks.append(lettering(RIGHT, y + 31, label, "tick end"))
    return marks


def tick(value: float) -> str:
    """A number at an axis, as short as it goes."""
    text = f"{value:.6g}" if abs(value) < 10_000 else f"{value / 1000:.6g}k"
    return text.replace("-", "−")


def dot(x: float, y: float, style: str) -> list[Mark]:
    """The mark of a stage, by shape as well as by colour."""
    shape, named = style.split()[0] if style else "", {"class": f"dot {style}".strip()}
    if shape == "sft":
        return [Mark("rect", {"x": rounded(x - 3.7), "y": rounded(y - 3.7), "width": 7.4, "height": 7.4} | named)]
    outline = {"reward": ((0, -5), (5, 0), (0, 5), (-5, 0)), "ppo": ((0, -5), (5, 4), (-5, 4))}.get(shape)
    if outline is not None:
        points = " ".join(f"{rounded(x + a)},{rounded(y + b)}" for a, b in outline)
        return [Mark("polygon", {"points": points} | named)]
    return [Mark("circle", {"cx": rounded(x), "cy": rounded(y), "r": 4} | named)]


def segment(x1: float, y1: float, x2: float, y2: float, style: str) -> Mark:
    """A straight line."""
    return Mark("line", {"x1": rounded(x1), "y1": rounded(y1), "x2": rounded(x2), "y2": rounded(y2), "class": style})


def lettering(x: float, y: float, text: str, style: str) -> Mark:
    """Text that starts at x, or ends or is centred there by its class, on the baseline y."""
    return Mark("text", {"x": rounded(x), "y": rounded(y), "class": style}, text)


def rounded(value: float) -> float:
    """A coordinate to a tenth of a unit."""
    return round(float(value), 1)
