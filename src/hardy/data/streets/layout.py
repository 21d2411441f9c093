"""The layout of one street: carriageway, pavements, and everything that stands as an upright face along it.

Street coordinates in metres: x to the right of the centre line, y up, z along the street from the camera. Houses,
yard walls, fences and hedges are upright `Wall` faces over a line of the layout, so that one pass over the image
columns finds them all (`hardy.data.streets.view`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from hardy.data.streets.town import (
    BUILDING,
    FENCE,
    SIDEWALK,
    TERRAIN,
    VEGETATION,
    WALL,
    Colour,
    Town,
)

__all__ = ["FIRST", "LAST", "STEP", "Layout", "Wall", "draw_layout"]

FIRST, LAST, STEP = -24.0, 200.0, 0.5
"""Reach of the layout along the street and the resolution of its tables, in metres."""

_BLANK: Colour = (0.0, 0.0, 0.0)


class Wall(NamedTuple):
    """An upright face over the line from (x0, z0) to (x1, z1), ``height`` high.

    ``rise`` is the extra height of a gable in the middle; ``roof`` is the height of the roof band that ends it;
    ``ground`` the height of a shop floor; ``width`` and ``tall`` the shares of bay and floor that a window fills;
    ``pattern`` picks the way it is painted.
    """

    x0: float
    z0: float
    x1: float
    z1: float
    height: float
    label: int
    colour: Colour
    rise: float = 0.0
    roof: float = 0.0
    trim: Colour = _BLANK
    tile: Colour = _BLANK
    door: Colour = _BLANK
    bay: float = 3.0
    floor: float = 3.0
    width: float = 0.0
    tall: float = 0.0
    ground: float = 0.0
    pattern: int = 0


@dataclass(frozen=True)
class Layout:
    """One street.

    Attributes:
        road: half width of the carriageway, parking lanes included, per side (left, right).
        parking: width of the parking lane per side, 0 where there is none.
        verge: width of the grass strip behind the kerb per side.
        walk: width of the pavement behind the verge per side.
        bend: curvature; a point z ahead lies ``bend * z**2`` to the right.
        crossings: z of zebra crossings.
        side_street: (2, Z) bool, where a side street leaves.
        yard: (2, Z) uint8, class of the ground behind the pavement.
        skyline: (2, Z) float32, height of the houses at the building line, smoothed over some metres.
        gardens: (side, z0, z1) of the lots that are open.
        walls: all upright faces.
        lanes: 1 or 2 lanes per direction.
    """

    road: tuple[float, float]
    parking: tuple[float, float]
    verge: tuple[float, float]
    walk: tuple[float, float]
    bend: float
    crossings: tuple[float, ...]
    side_street: np.ndarray
    yard: np.ndarray
    skyline: np.ndarray
    gardens: tuple[tuple[int, float, float], ...]
    walls: tuple[Wall, ...]
    lanes: int

    def line(self, side: int) -> float:
        """Distance of the building line from the centre line on ``side`` (0 left, 1 right)."""
        return self.road[side] + self.verge[side] + self.walk[side]


def _between(rng: Generator, pair: tuple[float, float]) -> float:
    return pair[0] + (pair[1] - pair[0]) * rng.random()


def _pick(rng: Generator, colours: tuple[Colour, ...], spread: float = 0.04) -> Colour:
    choice, *shift = rng.random(5).tolist()
    base = colours[int(choice * len(colours))]
    common = spread * (2 * shift[0] - 1)
    red, green, blue = (
        min(0.97, max(0.03, part + common + spread * (own - 0.5))) for part, own in zip(base, shift[1:], strict=True)
    )
    return red, green, blue


def _house(rng: Generator, town: Town, length: float, extra: int = 0) -> Wall:
    """The face of a house, not placed yet; its gable and windows fit ``length``."""
    floors = int(rng.integers(town.floors[0], town.floors[1] + 1)) + extra
    floor = _between(rng, town.floor)
    ground = _between(rng, (3.3, 4.1)) if rng.random() < town.shop else 0.0
    gable = rng.random() < town.gable and length < 12
    roof = 0.0 if gable else (_between(rng, (1.2, 2.8)) if rng.random() < 0.6 else 0.5)
    body = ground + (floors - (ground > 0)) * floor + 0.5
    return Wall(
        0.0,
        0.0,
        0.0,
        0.0,
        body + roof,
        BUILDING,
        _pick(rng, town.facades),
        rise=_between(rng, (2.0, 3.6)) if gable else 0.0,
        roof=roof,
        trim=_pick(rng, town.trims),
        tile=_pick(rng, town.roofs),
        door=_pick(rng, town.doors, 0.1),
        bay=length / max(1, round(length / _between(rng, town.bay))),
        floor=floor,
        width=_between(rng, town.window[0]),
        tall=_between(rng, town.window[1]),
        ground=ground,
        pattern=int(rng.integers(4)),
    )


class _Side:
    """One side of the street while its lots are laid out."""

    def __init__(self, sign: int, line: float) -> None:
        bins = int((LAST - FIRST) / STEP)
        self.sign = sign
        self.line = line
        self.walls: list[Wall] = []
        self.gardens: list[tuple[int, float, float]] = []
        self.street = np.zeros(bins, bool)
        self.yard = np.full(bins, SIDEWALK, np.uint8)
        self.skyline = np.zeros(bins, np.float32)

    @staticmethod
    def span(z0: float, z1: float) -> slice:
        return slice(max(0, int((z0 - FIRST) / STEP)), max(0, int((z1 - FIRST) / STEP)))

    def along(self, wall: Wall, z0: float, z1: float, back: float = 0.0) -> None:
        x = self.sign * (self.line + back)
        self.walls.append(wall._replace(x0=x, z0=z0, x1=x, z1=z1))

    def across(self, wall: Wall, z: float, back: float, depth: float) -> None:
        x = self.sign * (self.line + back)
        self.walls.append(wall._replace(x0=x, z0=z, x1=x + self.sign * depth, z1=z, rise=0.0, ground=0.0))

    def house(self, rng: Generator, town: Town, z0: float, z1: float, back: float) -> None:
        house = _house(rng, town, z1 - z0)
        self.along(house, z0, z1, back)
        depth = _between(rng, (9.0, 13.0))
        self.across(house._replace(bay=depth / max(1, round(depth / house.bay))), z0, back, depth)
        if back < 1:
            self.skyline[self.span(z0, z1)] = house.height + house.rise / 2

    def garden(self, rng: Generator, town: Town, z0: float, z1: float) -> None:
        """An open lot: garden with a house behind, walled yard, or a park, each with its own border."""
        self.yard[self.span(z0, z1)] = TERRAIN
        self.gardens.append((int(self.sign > 0), z0, z1))
        back = _between(rng, town.setback)
        border = rng.random()
        if border < 0.42:
            paint = ((0.30, 0.33, 0.30), (0.62, 0.50, 0.36), (0.82, 0.82, 0.80), (0.22, 0.22, 0.25))
            fence = Wall(0, 0, 0, 0, _between(rng, (1.0, 1.8)), FENCE, _pick(rng, paint), pattern=int(rng.integers(2)))
            self.along(fence, z0, z1)
            self.across(fence, z0, 0.0, back)
        elif border < 0.82:
            stone = ((0.60, 0.57, 0.52), (0.52, 0.34, 0.28), (0.72, 0.70, 0.66))
            wall = Wall(0, 0, 0, 0, _between(rng, (1.2, 2.6)), WALL, _pick(rng, stone), trim=_pick(rng, town.trims))
            self.along(wall, z0, z1)
            self.across(wall, z0, 0.0, back)
        else:
            hedge = Wall(0, 0, 0, 0, _between(rng, (0.9, 1.6)), VEGETATION, (0.26, 0.38, 0.18))
            self.along(hedge, z0, z1)
            self.across(hedge, z0, 0.0, 1.2)
        if rng.random() < 0.65:
            self.house(rng, town, z0 + 1.0, z1 - 1.0, back)
        else:
            self.along(Wall(0, 0, 0, 0, _between(rng, (5.0, 9.0)), VEGETATION, (0.24, 0.36, 0.16)), z0, z1, back + 9)

    def opening(self, z0: float, z1: float) -> None:
        """A side street between ``z0`` and ``z1``: two metres of pavement on either side of its carriageway."""
        self.street[self.span(z0 + 2, z1 - 2)] = True

    def backdrop(self, rng: Generator, town: Town) -> None:
        """What is seen over low walls and through the gaps: a second row of houses and trees."""
        z, back = FIRST, 26.0
        while z < 150:
            length = _between(rng, (14.0, 26.0))
            if rng.random() < 0.6:
                self.along(_house(rng, town, length), z, z + length, back)
            else:
                height = _between(rng, (5.0, 11.0))
                self.along(Wall(0, 0, 0, 0, height, VEGETATION, (0.24, 0.35, 0.17)), z, z + length, back - 3)
            z += length


def _lots(side: _Side, rng: Generator, town: Town, opening: float) -> None:
    z = -20.0 + _between(rng, (0.0, 6.0))
    while z < 165:
        if z >= opening > 0 or (z > 75 and rng.random() < 0.06):
            length = _between(rng, (9.0, 12.0))
            side.opening(z, z + length)
            opening = -1.0
        elif rng.random() < town.garden:
            length = _between(rng, (9.0, 18.0))
            side.garden(rng, town, z, z + length)
        else:
            length = _between(rng, town.lot)
            side.house(rng, town, z, z + length, 0.0)
        z += length
    side.backdrop(rng, town)


def draw_layout(rng: Generator, town: Town) -> Layout:
    """Draw a street of ``town``; every draw comes from ``rng``."""
    parking = tuple(2.2 if rng.random() < 0.6 else 0.0 for _ in range(2))
    verge = tuple(_between(rng, (1.2, 2.4)) if rng.random() < 0.35 else 0.0 for _ in range(2))
    walk = tuple(_between(rng, town.walk) for _ in range(2))
    half = _between(rng, town.road)
    road = tuple(half + parking[side] for side in range(2))
    sides = [_Side(2 * side - 1, road[side] + verge[side] + walk[side]) for side in range(2)]
    first = _between(rng, (9.0, 34.0))
    openings = [first, _between(rng, (20.0, 70.0)) if rng.random() < 0.5 else -1.0]
    if rng.random() < 0.5:
        openings.reverse()
    for side, opening in zip(sides, openings, strict=True):
        _lots(side, rng, town, opening)
    crossings = (first - _between(rng, (3.5, 5.0)),) if rng.random() < 0.6 else ()
    end = _between(rng, (120.0, 165.0))
    bend = float(rng.normal(0, 0.0005))
    return Layout(
        (road[0], road[1]),
        (parking[0], parking[1]),
        (verge[0], verge[1]),
        (walk[0], walk[1]),
        bend,
        crossings,
        np.stack([side.street for side in sides]),
        np.stack([side.yard for side in sides]),
        np.stack([np.convolve(side.skyline, np.full(7, 1 / 7), "same") for side in sides]).astype(np.float32),
        tuple(garden for side in sides for garden in side.gardens),
        tuple(wall for side in sides for wall in side.walls) + _far_end(rng, town, end),
        2 if half > 5.4 else 1,
    )


def _far_end(rng: Generator, town: Town, end: float) -> tuple[Wall, ...]:
    """The street ends on a row of houses and trees."""
    walls = []
    x = -70.0
    while x < 70:
        length = _between(rng, (12.0, 24.0))
        wall = _house(rng, town, length)
        if rng.random() < 0.4:
            wall = Wall(0, 0, 0, 0, _between(rng, (6.0, 12.0)), VEGETATION, (0.24, 0.35, 0.17))
        walls.append(wall._replace(x0=x, z0=end, x1=x + length, z1=end))
        x += length
    return tuple(walls)
