"""Plots of the report as plain marks on a canvas; templates/figure.html.j2 writes them as SVG, every value escaped.

Marks carry class names only, never colours: the page's style sheet knows the colours of light, dark and print. All
figures are 360 units wide, the width of a small phone, so that their lettering stays readable when several stand side
by side on a wide screen. Every figure brings the table that it was drawn from.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

WIDTH = 360
_RIGHT = 350.0
_ROW = 19.0


class Mark(NamedTuple):
    """One SVG element: its tag, its attributes, and the text inside it."""

    tag: str
    attributes: dict[str, str | float]
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


class Row(NamedTuple):
    """An estimate with its interval in a forest plot; `bound` is the one-sided bound that a gate compares."""

    label: str
    style: str
    estimate: float
    low: float
    high: float
    bound: float | None = None


class Group(NamedTuple):
    """Rows of a forest plot under one heading, with the limit that holds for them."""

    label: str
    rows: tuple[Row, ...]
    limit: float | None = None


class Series(NamedTuple):
    """A line of a curve; points whose y is None are left out."""

    label: str
    style: str
    points: tuple[tuple[float, float | None], ...]


def number(value: float | None, digits: int = 3) -> str:
    """A number for a person: `digits` significant after the point for small ones, a true minus, a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    places = digits if size < 10 else max(0, digits - 2) if size < 1000 else 0
    text = f"{value:.{places}f}"
    if 0 < size < 0.5 * 10**-places:
        text = f"{value:.0e}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def ticks(low: float, high: float, *, count: int = 4) -> list[float]:
    """About `count` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def forest(
    title: str,
    groups: Sequence[Group],
    *,
    unit: str = "",
    domain: tuple[float, float] | None = None,
    reference: float | None = None,
    limit_name: str = "limit",
    legend: Sequence[Key] = (),
) -> Figure:
    """Estimates with intervals, one a row.

    Args:
        title: what is estimated.
        groups: the rows; a group without a label has no heading.
        unit: said beside the title.
        domain: ends of the axis; widened to hold everything drawn.
        reference: a value with a line over all rows, such as no change or chance.
        limit_name: what a group's limit is, "ceiling" or "margin".
        legend: entries of the legend.
    """
    rows = [row for group in groups for row in group.rows]
    drawn = [value for row in rows for value in (row.low, row.high, row.estimate)]
    drawn += [group.limit for group in groups if group.limit is not None]
    drawn += [value for value in (reference, *(domain or ())) if value is not None]
    low, high = _padded(min(drawn), max(drawn), exact=domain)
    left = 12.0 + max([6.4 * len(row.label) for row in rows] + [0])
    right = 312.0
    x = _scale(low, high, left, right)
    marks: list[Mark] = []
    y = 6.0
    for group in groups:
        if group.label:
            y += _ROW
            marks.append(_text(0, y - 5, group.label, "group"))
        top = y
        for row in group.rows:
            middle = y + _ROW / 2
            marks += [
                _text(0, middle + 4, row.label, "label"),
                _line(x(row.low), middle, x(row.high), middle, f"whisker {row.style}"),
                *_dot(x(row.estimate), middle, row.style),
                _text(WIDTH, middle + 4, number(row.estimate), "value end"),
            ]
            if row.bound is not None:
                marks.append(_line(x(row.bound), middle - 4, x(row.bound), middle + 4, f"notch {row.style}"))
            y += _ROW
        if group.limit is not None:
            marks.append(_line(x(group.limit), top, x(group.limit), y, "limit"))
        y += 4
    axis = _x_axis(x, ticks(low, high), y, top=6.0)
    if reference is not None:
        axis.append(_line(x(reference), 6, x(reference), y, "reference"))
    limits = any(group.limit is not None for group in groups)
    head = ("", "estimate", "95 % interval", *(("one-sided bound", limit_name) if limits else ()))
    body = []
    for group in groups:
        for row in group.rows:
            name = " · ".join(part for part in (group.label, row.label) if part)
            cells = (name, number(row.estimate), f"{number(row.low)} to {number(row.high)}")
            body.append(cells + ((number(row.bound), number(group.limit)) if limits else ()))
    spoken = "; ".join(f"{cells[0]}: {cells[1]}, {cells[2]}" for cells in body)
    return Figure(
        title, unit, f"{title}. {spoken}", y + 22, (*axis, *marks), Table(head, tuple(body)), tuple(legend)
    )


def curves(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    unit: str = "",
    domain: tuple[float, float] | None = None,
    reference: float | None = None,
    steps: bool = False,
    smooth: bool = False,
    legend: Sequence[Key] = (),
) -> Figure:
    """Lines over a common x axis.

    Args:
        title: what is drawn.
        series: the lines; one without any point is left out.
        x_label: name of the x axis.
        unit: said beside the title.
        domain: ends of the y axis; widened to hold every point.
        reference: a horizontal line, such as chance.
        steps: draw a staircase, as of a cumulative distribution.
        smooth: draw the points faintly and their running mean over them.
        legend: entries of the legend.
    """
    kept = [(line, [(a, b) for a, b in line.points if b is not None and math.isfinite(b)]) for line in series]
    kept = [(line, points) for line, points in kept if points]
    xs = [a for _, points in kept for a, _ in points] or [0.0, 1.0]
    ys = [b for _, points in kept for _, b in points] or [0.0, 1.0]
    low, high = _padded(*_ends([*ys, *(() if reference is None else (reference,)), *(domain or ())]), exact=domain)
    height, left = 178.0, 40.0
    x = _scale(*_widened(min(xs), max(xs)), left, _RIGHT)
    y = _scale(low, high, height, 8)
    marks: list[Mark] = []
    for value in ticks(low, high):
        marks.append(_line(left, y(value), _RIGHT, y(value), "grid"))
        marks.append(_text(left - 5, y(value) + 4, _tick(value), "tick end"))
    marks += _x_axis(x, ticks(min(xs), max(xs), count=5), height, top=None, label=x_label)
    if reference is not None:
        marks.append(_line(left, y(reference), _RIGHT, y(reference), "reference"))
    for line, points in kept:
        faint = smooth and len(points) >= 24
        for chosen, style in ((points, "faint"), (_running_mean(points), "")) if faint else ((points, ""),):
            marks.append(Mark("path", {"d": _path(chosen, x, y, steps=steps), "class": f"line {line.style} {style}".strip()}))
        if len(points) == 1:
            marks += _dot(x(points[0][0]), y(points[0][1]), line.style)
    body = tuple(
        (line.label, number(a, 2 if a != int(a) else 0), number(b)) for line, points in kept for a, b in _few(points)
    )
    spoken = "; ".join(f"{line.label} from {number(p[0][1])} to {number(p[-1][1])}" for line, p in kept) or "no points"
    table = Table(("", x_label, "value"), body)
    return Figure(title, unit, f"{title}. {spoken}", height + 36, tuple(marks), table, tuple(legend))


def histogram(title: str, edges: Sequence[float], counts: Sequence[float], *, x_label: str, unit: str = "") -> Figure:
    """Bars over intervals, those left of zero set apart."""
    height, left = 178.0, 40.0
    x = _scale(*_widened(min(*edges, 0.0), max(*edges, 0.0)), left, _RIGHT)
    y = _scale(0, max([*counts, 1]), height, 8)
    marks: list[Mark] = []
    for value in ticks(0, max([*counts, 1])):
        marks += [_line(left, y(value), _RIGHT, y(value), "grid"), _text(left - 5, y(value) + 4, _tick(value), "tick end")]
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        style = "bar wrong" if (start + end) / 2 <= 0 else "bar"
        box = {"x": _r(x(start) + 0.5), "y": _r(y(count)), "width": _r(max(x(end) - x(start) - 1, 0.5))}
        marks.append(Mark("rect", {**box, "height": _r(height - y(count)), "class": style}))
    marks += _x_axis(x, ticks(min(*edges, 0.0), max(*edges, 0.0), count=5), height, top=None, label=x_label)
    marks.append(_line(x(0), 8, x(0), height, "reference"))
    body = tuple(
        (f"{number(a, 2)} to {number(b, 2)}", str(count))
        for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    spoken = f"{title}. {sum(counts)} values between {number(min(edges), 2)} and {number(max(edges), 2)}"
    return Figure(title, unit, spoken, height + 36, tuple(marks), Table((x_label, "count"), body))


def reliability(
    title: str,
    predicted: Sequence[float | None],
    observed: Sequence[float | None],
    counts: Sequence[int],
    *,
    x_label: str,
    unit: str = "",
) -> Figure:
    """Observed over predicted frequencies with the diagonal of perfect calibration; areas follow the counts."""
    height, left = 178.0, 40.0
    x, y = _scale(0, 1, left, _RIGHT), _scale(0, 1, height, 8)
    marks: list[Mark] = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        marks += [_line(left, y(value), _RIGHT, y(value), "grid"), _text(left - 5, y(value) + 4, _tick(value), "tick end")]
    marks += _x_axis(x, [0.0, 0.25, 0.5, 0.75, 1.0], height, top=None, label=x_label)
    marks.append(_line(x(0), y(0), x(1), y(1), "reference"))
    filled = [(p, o, n) for p, o, n in zip(predicted, observed, counts, strict=True) if n and p is not None and o is not None]
    largest = max([n for *_, n in filled], default=1)
    for p, o, n in filled:
        radius = 2.5 + 6 * math.sqrt(n / largest)
        marks.append(Mark("circle", {"cx": _r(x(p)), "cy": _r(y(o)), "r": _r(radius), "class": "bubble"}))
    body = tuple((number(p, 2), number(o, 2), str(n)) for p, o, n in filled)
    table = Table(("predicted", "observed", "pairs"), body)
    return Figure(title, unit, f"{title}. {len(filled)} bins", height + 36, tuple(marks), table)


def _scale(low: float, high: float, start: float, end: float):
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _widened(low: float, high: float) -> tuple[float, float]:
    """An interval of some length, for a scale."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _padded(low: float, high: float, *, exact: tuple[float, float] | None) -> tuple[float, float]:
    """A little air around what is drawn, except at an end that was asked for and reached."""
    low, high = _widened(low, high)
    air = 0.05 * (high - low)
    bottom = low if exact is not None and low >= exact[0] else low - air
    top = high if exact is not None and high <= exact[1] else high + air
    return bottom, top


def _running_mean(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The mean of a window of about a twelfth of the points around each; shorter at both ends."""
    half = max(1, len(points) // 24)
    windows = [points[max(0, i - half) : i + half + 1] for i in range(len(points))]
    return [(point[0], sum(b for _, b in w) / len(w)) for point, w in zip(points, windows, strict=True)]


def _few(points: Sequence[tuple[float, float]], most: int = 11) -> list[tuple[float, float]]:
    """At most about `most` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _path(points: Sequence[tuple[float, float]], x, y, *, steps: bool) -> str:
    parts = [f"M{_r(x(points[0][0]))} {_r(y(points[0][1]))}"]
    for a, b in points[1:]:
        parts.append(f"H{_r(x(a))}V{_r(y(b))}" if steps else f"L{_r(x(a))} {_r(y(b))}")
    return "".join(parts)


def _x_axis(x, values: Sequence[float], y: float, *, top: float | None, label: str = "") -> list[Mark]:
    marks: list[Mark] = []
    for value in values:
        if top is not None:
            marks.append(_line(x(value), top, x(value), y, "grid"))
        marks.append(_text(x(value), y + 15, _tick(value), "tick middle"))
    if label:
        marks.append(_text(_RIGHT, y + 31, label, "tick end"))
    return marks


def _tick(value: float) -> str:
    text = f"{value:.6g}" if abs(value) < 10_000 else f"{value / 1000:.6g}k"
    return text.replace("-", "−")


def _dot(x: float, y: float, style: str) -> list[Mark]:
    """The mark of a stage, by shape as well as by colour."""
    shape = style.split()[0] if style else ""
    if shape == "sft":
        return [Mark("rect", {"x": _r(x - 3.7), "y": _r(y - 3.7), "width": 7.4, "height": 7.4, "class": f"dot {style}"})]
    outline = {"reward": ((0, -5), (5, 0), (0, 5), (-5, 0)), "ppo": ((0, -5), (5, 4), (-5, 4))}.get(shape)
    if outline is not None:
        points = " ".join(f"{_r(x + a)},{_r(y + b)}" for a, b in outline)
        return [Mark("polygon", {"points": points, "class": f"dot {style}"})]
    return [Mark("circle", {"cx": _r(x), "cy": _r(y), "r": 4, "class": f"dot {style}".strip()})]


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Mark:
    return Mark("line", {"x1": _r(x1), "y1": _r(y1), "x2": _r(x2), "y2": _r(y2), "class": style})


def _text(x: float, y: float, text: str, style: str) -> Mark:
    return Mark("text", {"x": _r(x), "y": _r(y), "class": style}, text)


def _r(value: float) -> float:
    return round(float(value), 1)
