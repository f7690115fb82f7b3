"""Plots of the report as plain marks on a canvas; templates/figure.html.j2 writes them as SVG, every value escaped.

Every figure brings the table that it was drawn from.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.marks import (
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Figure,
    Key,
    Mark,
    Scale,
    Table,
    dot,
    ends,
    lettering,
    log_scale,
    number,
    padded,
    powers_of_ten,
    rounded,
    scale,
    segment,
    ticks,
    widened,
    x_axis,
    y_axis,
)

_ROW = 19.0


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
        reference: a value with a line beside all rows, such as no change or chance.
        limit_name: what a group's limit is, "ceiling" or "margin".
        legend: entries of the legend.
    """
    rows = [row for group in groups for row in group.rows]
    drawn = [value for row in rows for value in (row.low, row.high, row.estimate)]
    drawn += [group.limit for group in groups if group.limit is not None]
    drawn += [value for value in (reference, *(domain or ())) if value is not None]
    low, high = padded(min(drawn), max(drawn), exact=domain)
    left = 12.0 + max([6.4 * len(row.label) for row in rows] + [0])
    right = 312.0
    x = scale(low, high, left, right)
    marks: list[Mark] = []
    y = 6.0
    for group in groups:
        if group.label:
            y += _ROW
            marks.append(lettering(0, y - 5, _heading(group.label), "group"))
        top = y
        if reference is not None:  # beside the rows only: a line through a heading makes it hard to read
            height = _ROW * len(group.rows)
            marks.append(segment(x(reference), top, x(reference), top + height, "reference"))
        for row in group.rows:
            middle = y + _ROW / 2
            marks += [
                lettering(0, middle + 4, row.label, "label"),
                segment(x(row.low), middle, x(row.high), middle, f"whisker {row.style}"),
                *dot(x(row.estimate), middle, row.style),
                lettering(WIDTH, middle + 4, number(row.estimate), "value end"),
            ]
            if row.bound is not None:
                marks.append(segment(x(row.bound), middle - 4, x(row.bound), middle + 4, f"notch {row.style}"))
            y += _ROW
        if group.limit is not None:
            marks.append(segment(x(group.limit), top, x(group.limit), y, "limit"))
        y += 4
    axis = x_axis(x, ticks(low, high), y, top=6.0)
    limits = any(group.limit is not None for group in groups)
    head = ("of", "estimate", "95 % interval", *(("one-sided bound", limit_name) if limits else ()))
    body = []
    for group in groups:
        for row in group.rows:
            name = " · ".join(part for part in (group.label, row.label) if part)
            cells = (name, number(row.estimate), f"{number(row.low)} to {number(row.high)}")
            body.append(cells + ((number(row.bound), number(group.limit)) if limits else ()))
    spoken = "; ".join(f"{cells[0]}: {cells[1]}, {cells[2]}" for cells in body)
    return Figure(title, unit, f"{title}. {spoken}", y + 22, (*axis, *marks), Table(head, tuple(body)), tuple(legend))


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
    logarithmic: bool = False,
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
        logarithmic: draw x, which is above 0, by its logarithm.
        legend: entries of the legend.
    """
    kept = [(line, [(a, b) for a, b in line.points if b is not None and math.isfinite(b)]) for line in series]
    kept = [(line, points) for line, points in kept if points]
    xs = [a for _, points in kept for a, _ in points] or [0.0, 1.0]
    ys = [b for _, points in kept for _, b in points] or [0.0, 1.0]
    low, high = padded(*ends([*ys, *(() if reference is None else (reference,)), *(domain or ())]), exact=domain)
    x, shown = scale(*widened(min(xs), max(xs)), LEFT, RIGHT), ticks(min(xs), max(xs), count=5)
    if logarithmic:
        x, shown = log_scale(*ends(xs), LEFT, RIGHT), powers_of_ten(*ends(xs))
    y = scale(low, high, HEIGHT, 8)
    marks = y_axis(y, ticks(low, high))
    marks += x_axis(x, shown, HEIGHT, label=x_label)
    if reference is not None:
        marks.append(segment(LEFT, y(reference), RIGHT, y(reference), "reference"))
    for line, points in kept:
        faint = smooth and len(points) >= 24
        for chosen, style in ((points, "faint"), (_running_mean(points), "")) if faint else ((points, ""),):
            outline = _path(chosen, x, y, steps=steps)
            marks.append(Mark("path", {"d": outline, "class": f"line {line.style} {style}".strip()}))
        if len(points) == 1:
            marks += dot(x(points[0][0]), y(points[0][1]), line.style)
    body = tuple(
        (line.label, number(a, 2 if a != int(a) else 0), number(b)) for line, points in kept for a, b in _few(points)
    )
    spoken = "; ".join(f"{line.label} from {number(p[0][1])} to {number(p[-1][1])}" for line, p in kept) or "no points"
    table = Table(("line", x_label, "value"), body)
    return Figure(title, unit, f"{title}. {spoken}", HEIGHT + 36, tuple(marks), table, tuple(legend))


def histogram(title: str, edges: Sequence[float], counts: Sequence[float], *, x_label: str, unit: str = "") -> Figure:
    """Bars over intervals, those left of zero set apart."""
    x = scale(*widened(min(*edges, 0.0), max(*edges, 0.0)), LEFT, RIGHT)
    y = scale(0, max([*counts, 1]), HEIGHT, 8)
    marks = y_axis(y, ticks(0, max([*counts, 1])))
    for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
        style = "bar wrong" if (start + end) / 2 <= 0 else "bar"
        box = {"x": rounded(x(start) + 0.5), "y": rounded(y(count)), "width": rounded(max(x(end) - x(start) - 1, 0.5))}
        marks.append(Mark("rect", {**box, "height": rounded(HEIGHT - y(count)), "class": style}))
    marks += x_axis(x, ticks(min(*edges, 0.0), max(*edges, 0.0), count=5), HEIGHT, label=x_label)
    marks.append(segment(x(0), 8, x(0), HEIGHT, "reference"))
    body = tuple(
        (f"{number(a, 2)} to {number(b, 2)}", str(count))
        for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
    spoken = f"{title}. {sum(counts)} values between {number(min(edges), 2)} and {number(max(edges), 2)}"
    return Figure(title, unit, spoken, HEIGHT + 36, tuple(marks), Table((x_label, "count"), body))


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
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    x, y = scale(0, 1, LEFT, RIGHT), scale(0, 1, HEIGHT, 8)
    marks = y_axis(y, quarters)
    marks += x_axis(x, quarters, HEIGHT, label=x_label)
    marks.append(segment(x(0), y(0), x(1), y(1), "reference"))
    bins = zip(predicted, observed, counts, strict=True)
    filled = [(p, o, n) for p, o, n in bins if n and p is not None and o is not None]
    largest = max([n for *_, n in filled], default=1)
    for p, o, n in filled:
        radius = 2.5 + 6 * math.sqrt(n / largest)
        marks.append(
            Mark("circle", {"cx": rounded(x(p)), "cy": rounded(y(o)), "r": rounded(radius), "class": "bubble"})
        )
    body = tuple((number(p, 2), number(o, 2), str(n)) for p, o, n in filled)
    table = Table(("predicted", "observed", "count"), body)
    return Figure(title, unit, f"{title}. {len(filled)} bins", HEIGHT + 36, tuple(marks), table)


def _heading(label: str, most: int = 44) -> str:
    """A label that fits the canvas: cut in its middle, for a count stands at its end."""
    return label if len(label) <= most else f"{label[: most - 14]}…{label[-13:]}"


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


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale, *, steps: bool) -> str:
    parts = [f"M{rounded(x(points[0][0]))} {rounded(y(points[0][1]))}"]
    for a, b in points[1:]:
        parts.append(f"H{rounded(x(a))}V{rounded(y(b))}" if steps else f"L{rounded(x(a))} {rounded(y(b))}")
    return "".join(parts)
