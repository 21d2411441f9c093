"""Figures as inline SVG. Coordinates are percentages, so the figures fit any width and their text keeps its size.

Points, bars and lines have a text (``data-tip``), which the page shows when the pointer is over them or when they are
reached by keyboard. Screen readers read it as their label.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Mark", "bar", "heat", "lines", "scatter", "ticks"]


@dataclass(frozen=True)
class Mark:
    """A point of a scatter plot.

    Attributes:
        x, y: its place.
        name: shown beside it.
        tip: its text.
        colour: a number; None without a colour.
        front: whether it is on the front.
        hollow: whether it is drawn as a ring.
    """

    x: float
    y: float
    name: str
    tip: str
    colour: int | None
    front: bool
    hollow: bool = False


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, at most ``most + 1`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def bar(value: float, low: float | None, high: float | None, most: float, colour: int) -> str:
    """A horizontal bar of ``value``, with the interval from ``low`` to ``high``, if any; ``most`` is the full width."""
    parts = [f'<rect class="fill c{colour}" width="{100 * value / most:.2f}%" height="100%" rx="3"/>']
    if low is not None and high is not None:
        left, right = 100 * low / most, 100 * high / most
        parts.append(f'<line class="whisker" x1="{left:.2f}%" x2="{right:.2f}%" y1="50%" y2="50%"/>')
        parts += [f'<line class="whisker" x1="{x:.2f}%" x2="{x:.2f}%" y1="22%" y2="78%"/>' for x in (left, right)]
    return f'<svg class="bar" aria-hidden="true">{"".join(parts)}</svg>'


def scatter(marks: Sequence[Mark], line: Sequence[tuple[float, float]], titles: tuple[str, str], about: str) -> str:
    """Points over a logarithmic axis of times, with the front as a line.

    Args:
        marks: the points.
        line: the points (x, y) of the front, sorted by x.
        titles: of the y axis and the x axis.
        about: a description of the figure in one sentence.
    """
    xs, ys = [math.log10(one.x) for one in marks], [one.y for one in marks]
    left, right = _room(min(xs), max(xs), 0.09, least=0.08)
    bottom, top = _room(min(ys), max(ys), 0.12, least=0.5)

    def place(x: float, y: float) -> tuple[float, float]:
        return 100 * (math.log10(x) - left) / (right - left), 100 * (top - y) / (top - bottom)

    parts = [_across(value, place(1, value)[1], f"{value:g}") for value in ticks(bottom, top)]
    times = [x for x in _times(left, right) if left <= math.log10(x) <= right]
    parts += [_down(place(x, bottom)[0], f"{x:.12g}") for x in times]
    if len(line) > 1:
        steps = " ".join(f"{x:.2f},{y:.2f}" for x, y in _stairs([place(*one) for one in line]))
        parts.append(_stretched(f'<polyline class="front" points="{steps}"/>'))
    ordered = sorted(marks, key=lambda one: (one.front, one.colour is not None, one.x))
    named = _named([(one, *place(one.x, one.y)) for one in marks])
    parts += [_point(one, *place(one.x, one.y), label=any(one is other for other in named)) for one in ordered]
    return _axes("".join(parts), titles, about, 380)


def lines(curves: Mapping[str, tuple[int, Sequence[tuple[float, float]]]], titles: tuple[str, str], about: str) -> str:
    """Curves over steps: name -> (colour, points)."""
    points = [point for _, curve in curves.values() for point in curve]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    right, (bottom, top) = max(xs) or 1, _room(min(ys), max(ys), 0.06, least=0.02 * max(map(abs, ys)) or 1.0)
    bottom = 0.0 if 0 <= min(ys) < 0.4 * max(ys) else bottom
    parts = [_across(value, 100 * (top - value) / (top - bottom), f"{value:g}") for value in ticks(bottom, top, most=4)]
    parts += [_down(100 * x / right, f"{x:g}") for x in ticks(0, right, most=4)]
    drawn = ""
    for name, (colour, curve) in curves.items():
        places = " ".join(f"{100 * x / right:.2f},{100 * (top - y) / (top - bottom):.2f}" for x, y in curve)
        tip = f"{name}: {curve[0][1]:.3g} at step {curve[0][0]:g}, {curve[-1][1]:.3g} at step {curve[-1][0]:g}"
        drawn += f'<polyline class="curve s{colour}" points="{places}" data-tip="{escape(tip)}"/>'
    parts.append(_stretched(drawn))
    return _axes("".join(parts), titles, about, 200)


def heat(classes: Sequence[str], shares: Sequence[Sequence[float | None]], about: str) -> str:
    """A square of shares: a row for each true class, a column for each predicted class."""
    count, parts = len(classes), []
    side = 100 / count
    for down, row in enumerate(shares):
        for across, share in enumerate(row):
            if share is None or (share < 0.005 and down != across):
                continue
            tip = f"{classes[down]} is called {classes[across]}: {100 * share:.1f} % of its pixels"
            kind = "right" if down == across else "wrong"
            parts.append(
                f'<rect class="{kind}" x="{across * side:.3f}" y="{down * side:.3f}" width="{side:.3f}" '
                f'height="{side:.3f}" style="--share:{share:.3f}" data-tip="{escape(tip)}"/>'
            )
    grid = "".join(f'<path class="grid" d="M0 {n * side:.3f}H100M{n * side:.3f} 0V100"/>' for n in range(count + 1))
    names = "".join(f"<span>{escape(name)}</span>" for name in classes)
    return (
        f'<div class="heat" style="--count:{count}" role="img" aria-label="{escape(about)}">'
        f'<div class="rows" aria-hidden="true">{names}</div>'
        f'<svg viewBox="0 0 100 100" aria-hidden="true">{"".join(parts)}{grid}</svg>'
        f'<div class="columns" aria-hidden="true">{names}</div></div>'
    )


def _axes(inside: str, titles: tuple[str, str], about: str, height: int) -> str:
    up, across = map(escape, titles)
    return (
        f'<div class="plot" role="group" aria-label="{escape(about)}"><span class="up">{up}</span>'
        f'<svg class="area" height="{height}">{inside}</svg><span class="across">{across}</span></div>'
    )


def _across(value: float, y: float, text: str) -> str:
    zero = " zero" if value == 0 else ""
    return (
        f'<line class="rule{zero}" x1="0" x2="100%" y1="{y:.2f}%" y2="{y:.2f}%"/>'
        f'<text class="tick" x="-8" y="{y:.2f}%" dy="4" text-anchor="end">{text}</text>'
    )


def _down(x: float, text: str) -> str:
    return (
        f'<line class="rule" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>'
        f'<text class="tick" x="{x:.2f}%" y="100%" dy="18" text-anchor="middle">{text}</text>'
    )


def _named(points: Sequence[tuple[Mark, float, float]]) -> list[Mark]:
    """The coloured points whose names can be shown without overlap; those on the front have priority."""
    found: list[Mark] = []
    taken: list[tuple[float, float, float]] = []
    for one, x, y in sorted(points, key=lambda point: (not point[0].front, -point[0].y)):
        wide = 1.2 * len(one.name)  # percent of a plot of 600 pixels
        left = x if x < 62 else x - wide
        clear = all(left > right or left + wide < start or abs(y - height) > 4.5 for start, right, height in taken)
        if one.colour is not None and clear:
            found.append(one)
            taken.append((left, left + wide, y))
    return found


def _point(one: Mark, x: float, y: float, *, label: bool) -> str:
    colour = "other" if one.colour is None else f"{'s' if one.hollow else 'c'}{one.colour}"
    reach = f'tabindex="0" role="img" aria-label="{escape(one.tip)}"' if one.front or one.colour is not None else ""
    side = ('x="-9" text-anchor="end"', 'x="9"')[x < 62]
    kind = f"mark{' best' * one.front}{' hollow' * one.hollow}"
    text = f'<text class="name" {side} dy="{18 if y < 8 else -9}">{escape(one.name)}</text>' if label else ""
    return (
        f'<svg x="{x:.2f}%" y="{y:.2f}%" class="{kind}" {reach} data-tip="{escape(one.tip)}">'
        f'<circle class="{colour}" r="{7 if one.front else 5}"/>{text}</svg>'
    )


def _stretched(inside: str) -> str:
    return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none">{inside}</svg>'


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of a step line: horizontal at the height of one point, then vertical to the next."""
    found = [points[0]]
    for x, y in points[1:]:
        found += [(x, found[-1][1]), (x, y)]
    return [*found, (100.0, found[-1][1])]


def _room(low: float, high: float, share: float, *, least: float) -> tuple[float, float]:
    room = max((high - low) * share, least)
    return low - room, high + room


def _times(left: float, right: float) -> list[float]:
    """Ticks at 1, 2 and 5 of every decade; more of them within one decade, and round numbers within half a decade."""
    if right - left < 0.5:
        return ticks(10**left, 10**right, most=7)
    digits = (1, 2, 3, 4, 6, 8) if right - left < 1 else (1, 2, 5)
    decades = range(math.floor(left), math.ceil(right) + 1)
    return [digit * 10.0**decade for decade in decades for digit in digits]
