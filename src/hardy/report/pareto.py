"""Accuracy against milliseconds: the Pareto front and its plot.

A point is on the Pareto front if no other point is at least as fast, at least as accurate, and better in one of them.

Source: V. Pareto, "Manuale di economia politica", 1906, chapter 6; for networks Mingxing Tan et al., "MnasNet:
platform-aware neural architecture search for mobile", CVPR 2019, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from hardy.errors import InputError
from hardy.files import write_text

__all__ = ["Point", "figure", "front", "write"]

_COLOURS = ("#1f5fa8", "#b0562c", "#4c7a34", "#7a4c9c", "#8a8a8a")


@dataclass(frozen=True)
class Point:
    """One network: its name, its milliseconds, its score (higher is better), and its group, which sets its colour."""

    name: str
    milliseconds: float
    score: float
    group: str = ""


def front(points: Sequence[Point]) -> list[Point]:
    """The points on the Pareto front, fastest first; equal points are all on it."""

    def beaten(one: Point) -> bool:
        return any(
            other.milliseconds <= one.milliseconds
            and other.score >= one.score
            and (other.milliseconds, other.score) != (one.milliseconds, one.score)
            for other in points
        )

    return sorted((one for one in points if not beaten(one)), key=lambda one: (one.milliseconds, -one.score, one.name))


def figure(points: Sequence[Point], *, title: str, score: str, milliseconds: str = "milliseconds") -> Any:
    """A plotly figure: every point with its name, the front as a line; the axis of milliseconds is logarithmic.

    Args:
        points: at least one.
        title: of the figure.
        score: title of the axis of scores.
        milliseconds: title of the axis of milliseconds.

    Raises:
        InputError: without points, or when plotly is not installed.
    """
    if not points:
        raise InputError(f"{title}: there is nothing to plot; no network has both a score and milliseconds")
    graphs = _plotly()
    drawn = graphs.Figure()
    sides = dict(zip(map(id, points), _sides(points), strict=True))
    best = front(points)
    drawn.add_scatter(
        x=[one.milliseconds for one in best],
        y=[one.score for one in best],
        mode="lines",
        name="Pareto front",
        line={"color": "#b9b9b9", "width": 2, "shape": "hv"},
        hoverinfo="skip",
    )
    for index, group in enumerate(dict.fromkeys(one.group for one in points)):
        mine = [one for one in points if one.group == group]
        drawn.add_scatter(
            x=[one.milliseconds for one in mine],
            y=[one.score for one in mine],
            text=[one.name for one in mine],
            mode="markers+text",
            textposition=[sides[id(one)] for one in mine],
            textfont={"size": 10},
            cliponaxis=False,
            name=group or "networks",
            marker={"size": 9, "color": _COLOURS[index % len(_COLOURS)]},
            hovertemplate="%{text}<br>%{x:.2f} ms, %{y:.1f}<extra></extra>",
        )
    drawn.update_layout(
        title=title,
        template="plotly_white",
        width=1000,
        height=640,
        legend={"orientation": "h", "y": -0.15},
        xaxis={"title": milliseconds, "type": "log", **_axis([one.milliseconds for one in points])},
        yaxis={"title": score},
    )
    return drawn


def _sides(points: Sequence[Point]) -> list[str]:
    """The side of each point where its name is written: away from the nearest other point."""

    def position(one: Point) -> tuple[float, float]:
        return _share(math.log(one.milliseconds), times), _share(one.score, scores)

    times = [math.log(one.milliseconds) for one in points]
    scores = [one.score for one in points]
    sides = []
    for one in points:
        others = [other for other in points if other is not one]
        nearest = min(others, key=lambda other: math.dist(position(one), position(other)), default=one)
        sides.append("bottom center" if nearest.score > one.score else "top center")
    return sides


def _share(value: float, among: Sequence[float]) -> float:
    """The position of ``value`` between the smallest and the largest, 0 to 1."""
    return (value - min(among)) / (max(among) - min(among) or 1.0)


def _axis(values: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with room for the names at both ends, and ticks in plain numbers at 1, 2 and 5."""
    least, most = math.log10(min(values)), math.log10(max(values))
    room = 0.08 * (most - least) or 0.1
    decades = range(math.floor(least - room), math.ceil(most + room) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return {"range": [least - room, most + room], "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def write(path: Path, figures: Sequence[Any], *, title: str, table: str = "") -> None:
    """Write one self-contained page to ``path``: ``figures`` and, below them, ``table``, which is HTML.

    Raises:
        InputError: when plotly is not installed.
    """
    _plotly()
    parts = [
        drawn.to_html(full_html=False, include_plotlyjs=index == 0, config={"displaylogo": False})
        for index, drawn in enumerate(figures)
    ]
    text = (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>body{font-family:sans-serif;margin:2em auto;max-width:1000px}table{border-collapse:collapse}"
        "td,th{padding:.2em .7em;border-bottom:1px solid #ddd;text-align:right}td:first-child{text-align:left}</style>"
        f"</head>\n<body><h1>{title}</h1>\n{''.join(parts)}\n{table}\n</body></html>\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


def _plotly() -> Any:
    try:
        return import_module("plotly.graph_objects")
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; it comes with: pip install 'hardy[report]'") from None
