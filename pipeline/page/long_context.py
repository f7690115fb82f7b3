"""What was found of long contexts, as lines for a terminal and as a page with plots."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pipeline.marks import Figure, Key, number
from pipeline.plots import Series, curves

# Styles of lines, in the order in which lengths take them.
_STYLES = ("base", "sft", "reward", "ppo")


def tables(figures: Mapping[str, Any]) -> list[str]:
    """Accuracy of retrieval by length and depth, and loss by position."""
    depths = list(dict.fromkeys(one["depth"] for one in figures["retrieval"]))
    lines = ["value found, of a context of", f"{'tokens':>12s}" + "".join(f"{f'depth {d:g}':>12s}" for d in depths)]
    for length, found in _by_length(figures).items():
        lines.append(f"{length:12,}" + "".join(f"{one['found'] / one['rows']:12.3f}" for one in found))
    lines += ["loss by position", f"{'positions':>16s}{'nats':>8s}{'tokens':>10s}"]
    for part in figures["loss"]:
        span = f"{part['first']}-{part['end'] - 1}"
        lines.append(f"{span:>16s}{part['loss']:8.3f}{part['tokens']:10,}")
    return lines


def plots(figures: Mapping[str, Any]) -> list[Figure]:
    """The same as curves."""
    series, legend = [], []
    for place, (length, found) in enumerate(_by_length(figures).items()):
        style = _STYLES[place % len(_STYLES)]
        points = tuple((one["depth"], one["found"] / one["rows"]) for one in found)
        series.append(Series(f"{length:,} tokens", style, points))
        legend.append(Key(f"line {style}", f"{length:,} tokens"))
    middle = tuple(((part["first"] + part["end"]) / 2, part["loss"]) for part in figures["loss"])
    return [
        curves("Value found", series, x_label="depth", unit="share of questions", domain=(0.0, 1.0), legend=legend),
        curves("Loss by position", [Series("loss", "base", middle)], x_label="position", unit="nats a token"),
    ]


def page(figures: Mapping[str, Any]) -> str:
    """A page that works offline."""
    environment = Environment(
        loader=PackageLoader("pipeline"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    assert environment.loader is not None
    style = Markup(environment.loader.get_source(environment, "report.css")[0])  # a file of ours
    rows = sorted({one["rows"] for one in figures["retrieval"]})
    return environment.get_template("long_context.html.j2").render(
        style=style, checkpoint=figures["checkpoint"], plots=plots(figures), rows=" to ".join(map(str, rows)),
        intervals=[
            (f"{one['length']:,}", f"{one['depth']:g}", number(one["estimate"]),
             f"{number(one['low'])} to {number(one['high'])}")
            for one in figures["retrieval"]
        ],
    )  # fmt: skip


def _by_length(figures: Mapping[str, Any]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for one in figures["retrieval"]:
        found.setdefault(one["length"], []).append(one)
    return found
