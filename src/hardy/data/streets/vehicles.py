"""Cars, buses and trucks of `streets`: side profiles swept over their width, with windows, wheels and lamps."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from hardy.data.streets.mesh import HEADLIGHT, INTERIOR, REARLIGHT, Builder, Mesh, disc
from hardy.data.streets.town import BUS, CAR, TRUCK, Colour

__all__ = ["CAR_KINDS", "bus", "car", "truck"]

GLASS: Colour = (0.16, 0.19, 0.22)
TYRE: Colour = (0.10, 0.10, 0.11)
HUB: Colour = (0.55, 0.56, 0.58)
RED: Colour = (0.70, 0.07, 0.06)
WHITE: Colour = (0.93, 0.93, 0.90)
DARK: Colour = (0.14, 0.14, 0.15)


class _Shape(NamedTuple):
    """Half length, belt and roof height, hood height, trunk height, and z of the four corners of the cabin."""

    half: float
    belt: float
    roof: float
    hood: float
    trunk: float
    rear_low: float
    rear_high: float
    front_high: float
    front_low: float
    width: float = 0.88


CAR_KINDS = {
    "saloon": _Shape(2.25, 0.95, 1.45, 0.78, 0.98, -1.45, -0.90, 0.35, 1.10),
    "hatchback": _Shape(1.98, 0.95, 1.48, 0.82, 1.00, -1.90, -1.55, 0.30, 1.02),
    "estate": _Shape(2.30, 0.95, 1.50, 0.80, 1.00, -2.20, -1.90, 0.35, 1.10),
    "offroad": _Shape(2.20, 1.12, 1.78, 1.02, 1.15, -2.10, -1.85, 0.35, 0.95, 0.94),
    "van": _Shape(2.40, 1.20, 2.00, 1.00, 1.25, -2.35, -2.20, 1.05, 1.75, 0.96),
}


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(1.0, part * factor) for part in colour)
    return red, green, blue


def _sweep(
    build: Builder, low: tuple[float, float], high: tuple[float, float], widths: tuple[float, float], colour: Colour
) -> None:
    """The strip between two (z, y) points of the profile, over the width there."""
    (z0, y0), (z1, y1), (w0, w1) = low, high, widths
    build.face([(-w0, y0, z0), (w0, y0, z0), (w1, y1, z1), (-w1, y1, z1)], colour, solid=True)


def _inset(
    build: Builder, low: tuple[float, float], high: tuple[float, float], widths: tuple[float, float], colour: Colour
) -> None:
    """A pane on the strip between two profile points."""
    (z0, y0), (z1, y1) = low, high
    a, b = 0.1, 0.92
    ends = [(z0 + (z1 - z0) * t, y0 + (y1 - y0) * t, widths[0] + (widths[1] - widths[0]) * t - 0.08) for t in (a, b)]
    (za, ya, wa), (zb, yb, wb) = ends
    build.face([(-wa, ya, za), (wa, ya, za), (wb, yb, zb), (-wb, yb, zb)], colour, layer=1, solid=True)


def _wheels(build: Builder, places: Sequence[float], width: float, radius: float) -> None:
    for z in places:
        for sign in (-1, 1):
            x = sign * (width + 0.01)
            build.side(disc(z, radius + 0.03, radius * 1.22), DARK, x, layer=1, solid=True)
            build.side(disc(z, radius, radius), TYRE, x * 1.01, layer=2, solid=True)
            build.side(disc(z, radius, radius * 0.62, 8), HUB, x * 1.02, layer=3, solid=True)
    for z in (min(places) - radius * 0.8, max(places) + radius * 0.8):
        for sign in (-1, 1):
            inner, outer = sign * (width - 0.24), sign * (width - 0.02)
            tread = [(inner, 0.0), (outer, 0.0), (outer, radius * 1.4), (inner, radius * 1.4)]
            build.flat(tread, TYRE, z, layer=-1, solid=True)


def _plate(build: Builder, box: tuple[float, float, float, float], z: float, colour: Colour, lamp: int = 0) -> None:
    """A rectangle (x0, y0, x1, y1) on a face across the street."""
    x0, y0, x1, y1 = box
    build.flat([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, z, layer=2, lamp=lamp, solid=True)


def _faces_of_car(build: Builder, s: _Shape, lit: bool) -> None:
    """Lamps, plates and bumpers of front and rear."""
    w, rear, front = s.width, -s.half - 0.01, s.half + 0.01
    for sign in (-1, 1):
        lamp = sorted((sign * (w - 0.32), sign * (w - 0.04)))
        _plate(build, (lamp[0], s.trunk - 0.34, lamp[1], s.trunk - 0.12), rear, RED, REARLIGHT * lit)
        _plate(build, (lamp[0], s.hood - 0.2, lamp[1], s.hood - 0.05), front, WHITE, HEADLIGHT * lit)
    _plate(build, (-w + 0.02, 0.28, w - 0.02, 0.45), rear, DARK)
    _plate(build, (-0.26, 0.5, 0.26, 0.62), rear, WHITE)
    _plate(build, (-w + 0.35, s.hood - 0.24, w - 0.35, s.hood - 0.06), front, DARK)
    _plate(build, (-w + 0.1, 0.28, w - 0.1, 0.42), front, DARK)
    _plate(build, (-0.26, 0.44, 0.26, 0.54), front, WHITE)


@lru_cache(maxsize=256)
def car(kind: str, paint: Colour, lit: bool) -> Mesh:
    """A passenger car of one of `CAR_KINDS`, its front towards +z, its lamps on where ``lit``."""
    s = CAR_KINDS[kind]
    build = Builder(CAR, (s.width, s.half))
    w, top, half = s.width, s.width * 0.78, s.half
    roof, low = _shade(paint, 0.98), 0.26
    _sweep(build, (-half, low), (-half, s.trunk), (w, w), paint)
    _sweep(build, (-half, s.trunk), (s.rear_low, s.belt), (w, w), paint)
    _sweep(build, (s.rear_low, s.belt), (s.rear_high, s.roof), (w, top), _shade(paint, 0.9))
    _sweep(build, (s.rear_high, s.roof), (s.front_high, s.roof), (top, top), roof)
    _sweep(build, (s.front_low, s.belt), (s.front_high, s.roof), (w, top), _shade(paint, 0.9))
    _sweep(build, (half, s.hood), (s.front_low, s.belt), (w, w), paint)
    _sweep(build, (half, low), (half, s.hood), (w, w), paint)
    _inset(build, (s.rear_low, s.belt), (s.rear_high, s.roof), (w, top), GLASS)
    _inset(build, (s.front_low, s.belt), (s.front_high, s.roof), (w, top), GLASS)
    outline = [(-half, low), (-half, s.trunk), (s.rear_low, s.belt), (s.front_low, s.belt), (half, s.hood), (half, low)]
    middle = (s.rear_high + s.front_high) / 2 + 0.05
    for sign in (-1, 1):
        build.side(outline, _shade(paint, 0.94), sign * w, solid=True)
        cabin = [
            (s.rear_low, s.belt, w),
            (s.rear_high, s.roof, top),
            (s.front_high, s.roof, top),
            (s.front_low, s.belt, w),
        ]
        build.face([(sign * x, y, z) for z, y, x in cabin], paint, solid=True)
        upper, lower = s.roof - 0.09, s.belt + 0.04
        wide = [(w * 0.98, lower), (top * 1.02, upper)]
        for z0, z1, z2, z3 in (
            (s.rear_low + 0.25, s.rear_high + 0.12, middle - 0.05, middle - 0.05),
            (middle + 0.05, middle + 0.05, s.front_high - 0.06, s.front_low - 0.28),
        ):
            (xl, yl), (xu, yu) = wide
            pane = [(sign * xl, yl, z0), (sign * xu, yu, z1), (sign * xu, yu, z2), (sign * xl, yl, z3)]
            build.face(pane, GLASS, layer=1, solid=True)
        sill = [(-half + 0.1, low), (-half + 0.1, low + 0.1), (half - 0.1, low + 0.1), (half - 0.1, low)]
        build.side(sill, DARK, sign * w * 1.005, layer=1, solid=True)
    _wheels(build, (-half + 0.78, half - 0.85), w, 0.33)
    _faces_of_car(build, s, lit)
    return build.build()


def _box(build: Builder, low: float, high: float, rear: float, front: float, width: float, colour: Colour) -> None:
    for z in (rear, front):
        build.flat([(-width, low), (width, low), (width, high), (-width, high)], colour, z, solid=True)
    for sign in (-1, 1):
        corners = [(rear, low), (rear, high), (front, high), (front, low)]
        build.side(corners, _shade(colour, 0.95), sign * width, solid=True)
    top = [(-width, high, rear), (width, high, rear), (width, high, front), (-width, high, front)]
    build.face(top, colour, solid=True)


@lru_cache(maxsize=64)
def bus(paint: Colour, stripe: Colour) -> Mesh:
    """A city bus eleven metres long."""
    build = Builder(BUS, (1.25, 5.5), middle=1.6)
    _box(build, 0.35, 3.05, -5.5, 5.5, 1.25, paint)
    for sign in (-1, 1):
        x = sign * 1.26
        for pane in range(7):
            z = -5.1 + pane * 1.45
            low = 0.55 if pane in (2, 6) and sign > 0 else 1.35
            build.side(
                [(z, low), (z, 2.55), (z + 1.25, 2.55), (z + 1.25, low)], GLASS, x, layer=1, lamp=INTERIOR, solid=True
            )
        build.side([(-5.5, 0.72), (-5.5, 0.95), (5.5, 0.95), (5.5, 0.72)], stripe, x * 0.998, layer=1, solid=True)
    _wheels(build, (-3.4, 3.4), 1.25, 0.48)
    _plate(build, (-1.1, 1.5, 1.1, 2.5), -5.51, GLASS)
    _plate(build, (-1.15, 1.1, 1.15, 2.55), 5.51, GLASS, INTERIOR)
    _plate(build, (-0.9, 2.65, 0.9, 2.95), 5.51, (0.85, 0.55, 0.10), INTERIOR)
    _plate(build, (-0.4, 2.62, 0.4, 2.9), -5.51, (0.85, 0.55, 0.10), INTERIOR)
    _plate(build, (-1.2, 0.35, 1.2, 0.6), -5.51, DARK)
    _plate(build, (-1.2, 0.35, 1.2, 0.55), 5.51, DARK)
    for sign in (-1, 1):
        box = sorted((sign * 0.8, sign * 1.15))
        _plate(build, (box[0], 0.75, box[1], 1.15), -5.52, RED, REARLIGHT)
        _plate(build, (box[0], 0.65, box[1], 0.88), 5.52, WHITE, HEADLIGHT)
    return build.build()


@lru_cache(maxsize=64)
def truck(paint: Colour, load: Colour) -> tuple[Mesh, Mesh]:
    """A box truck: the load and the cab, two objects because either may hide the other."""
    body = Builder(TRUCK, (1.2, 2.8), middle=2.0)
    _box(body, 0.95, 3.45, -3.6, 1.7, 1.22, load)
    for sign in (-1, 1):
        stripe = [(-3.4, 1.3), (-3.4, 1.9), (1.5, 1.9), (1.5, 1.3)]
        body.side(stripe, _shade(paint, 1.1), sign * 1.225, layer=1, solid=True)
        body.side([(-3.5, 0.55), (-3.5, 0.95), (1.7, 0.95), (1.7, 0.55)], DARK, sign * 0.9, layer=-1)
    _wheels(body, (-2.6, -1.5), 1.15, 0.48)
    _plate(body, (-0.03, 1.05, 0.03, 3.35), -3.62, DARK)
    _plate(body, (-1.1, 0.5, 1.1, 0.68), -3.62, DARK)
    cab = Builder(TRUCK, (1.15, 1.0), middle=1.4)
    _box(cab, 0.45, 2.65, 1.85, 3.7, 1.15, paint)
    cab.middle[2] = 2.7
    for sign in (-1, 1):
        cab.side([(2.3, 1.6), (2.3, 2.4), (3.3, 2.4), (3.55, 1.6)], GLASS, sign * 1.16, layer=1, solid=True)
        box = sorted((sign * 0.7, sign * 1.05))
        _plate(body, (box[0], 0.72, box[1], 0.92), -3.63, RED, REARLIGHT)
        _plate(cab, (box[0], 0.65, box[1], 0.9), 3.72, WHITE, HEADLIGHT)
        cab.side(disc(2.9, 0.48, 0.48), TYRE, sign * 1.17, layer=2, solid=True)
        cab.side(disc(2.9, 0.48, 0.28, 8), HUB, sign * 1.18, layer=3, solid=True)
    _plate(cab, (-1.02, 1.55, 1.02, 2.45), 3.71, GLASS)
    _plate(cab, (-0.7, 0.95, 0.7, 1.35), 3.71, DARK)
    return body.build((0.0, -1.0)), cab.build((0.0, 2.8))
