"""What stands and moves on a street of `streets`: vehicles, people, riders, trees, lamps, signals and signs."""

import math
from bisect import bisect
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.random import Generator

from hardy.data.streets import figures
from hardy.data.streets.layout import FIRST, STEP, Layout
from hardy.data.streets.mesh import Mesh, Placed, merge
from hardy.data.streets.town import TOWN_B, Colour, Town
from hardy.data.streets.vehicles import CAR_KINDS, bus, car, truck
from hardy.seed import key

__all__ = ["populate"]

STOCK = 64
"""How many different people, trees, ... there are; placed, turned, scaled and tinted they look like more."""

GREENS: tuple[Colour, ...] = ((0.42, 0.56, 0.26), (0.34, 0.50, 0.24), (0.52, 0.58, 0.26), (0.30, 0.44, 0.28))
COACHES: tuple[Colour, ...] = ((0.88, 0.72, 0.14), (0.78, 0.14, 0.14), (0.90, 0.90, 0.88), (0.16, 0.40, 0.62))
LOADS: tuple[Colour, ...] = ((0.90, 0.90, 0.88), (0.62, 0.66, 0.70), (0.84, 0.70, 0.40), (0.30, 0.48, 0.40))


@lru_cache(maxsize=1024)
def _stock(kind: str, number: int) -> Mesh:
    """Figure ``number`` of a kind; a function of these two alone."""
    rng = np.random.default_rng(key(number, "streets", kind))
    green = GREENS[number % len(GREENS)]
    match kind:
        case "person":
            return figures.person(rng)
        case "rider" | "bicycle":
            return figures.cyclist(rng, kind == "rider")
        case "bush":
            return figures.bush(rng, green)
        case "sign" | "other sign":
            return figures.sign(rng, kind == "other sign")
        case "signal left" | "signal right":
            return figures.signal(rng, 1 if kind == "signal left" else -1, 3.6 * (number % 2))
    return figures.tree(rng, kind == "slender tree", green)


class _Crowd:
    """Collects the objects of one street."""

    def __init__(self, rng: Generator, layout: Layout, town: Town) -> None:
        self.rng = rng
        self.layout = layout
        self.town = town
        self.objects: list[Placed] = []

    def closed(self, side: int, z: float) -> bool:
        """Whether z lies on a side street or on a zebra crossing, where nothing may stand."""
        cell = int((z - FIRST) / STEP)
        cells = self.layout.side_street[side, max(0, cell - 5) : cell + 6]
        return bool(cells.any()) or any(abs(z - at) < 4.5 for at in self.layout.crossings)

    def put(self, mesh: Mesh, x: float, z: float, heading: float = 0.0, scale: float = 1.0) -> None:
        self.objects.append(Placed(mesh, x, z, heading, scale))

    def tinted(self, mesh: Mesh, x: float, z: float, heading: float, scale: float = 1.0) -> None:
        """Put ``mesh`` with reflectances changed a little."""
        red, green, blue = (0.87 + 0.26 * self.rng.random(3)).tolist()
        self.objects.append(Placed(mesh, x, z, heading, scale, (red, green, blue)))

    def pick(self, shares: tuple[float, ...]) -> int:
        """A number drawn with the given shares."""
        return min(bisect(tuple(accumulate(shares)), self.rng.random()), len(shares) - 1)

    def figure(self, kind: str, x: float, z: float, heading: float = 0.0, spread: float = 0.1) -> None:
        """A figure of a kind, of random make, tint and size."""
        scale = 1 + spread * (2 * self.rng.random() - 1)
        self.tinted(_stock(kind, int(self.rng.integers(STOCK))), x, z, heading, scale)

    def car(self, x: float, z: float, heading: float, lit: bool = True) -> None:
        kinds = tuple(CAR_KINDS)
        kind = kinds[self.pick((0.28, 0.3, 0.16, 0.16, 0.1))]
        paint = self.town.cars[int(self.rng.integers(len(self.town.cars)))]
        self.tinted(car(kind, paint, lit), x, z, heading)

    def bus(self, x: float, z: float, heading: float) -> None:
        first = int(self.rng.integers(len(COACHES)))
        second = (first + int(self.rng.integers(1, len(COACHES)))) % len(COACHES)
        self.put(bus(COACHES[first], COACHES[second]), x, z, heading)

    def truck(self, x: float, z: float, heading: float) -> None:
        paint = self.town.cars[int(self.rng.integers(len(self.town.cars)))]
        for part in truck(paint, LOADS[int(self.rng.integers(len(LOADS)))]):
            self.put(part, x, z, heading)


def _parked(crowd: _Crowd) -> None:
    rng, layout = crowd.rng, crowd.layout
    for side, sign in enumerate((-1, 1)):
        if not layout.parking[side]:
            continue
        z = float(rng.uniform(-1, 5))
        share = float(rng.uniform(0.25, 0.85))
        while z < 90:
            if rng.random() < share and not any(crowd.closed(side, z + d) for d in (-2.5, 2.5)):
                x = sign * (layout.road[side] - 1.1 + float(rng.normal(0, 0.08)))
                crowd.car(x, z, (math.pi if side == 0 else 0.0) + float(rng.normal(0, 0.02)), lit=False)
            z += float(rng.uniform(5.2, 6.6))


def _moving(crowd: _Crowd) -> None:
    rng, layout = crowd.rng, crowd.layout
    left, right = (layout.road[side] - layout.parking[side] for side in range(2))
    middle = (right - left) / 2
    width = (right + left) / 2 / layout.lanes
    for direction, heading in ((1, 0.0), (-1, math.pi)):
        for lane in range(layout.lanes):
            x = middle + direction * width * (lane + 0.5)
            z = float(rng.uniform(9, 30) if direction > 0 else rng.uniform(7, 36))
            while z < 95:
                kind = rng.random()
                turn = heading + float(rng.normal(0, 0.02))
                if kind < 0.15:
                    crowd.bus(x, z + 4, turn)
                elif kind < 0.32:
                    crowd.truck(x, z + 3, turn)
                elif kind < 0.85:
                    crowd.car(x + float(rng.normal(0, 0.15)), z, turn)
                z += float(rng.uniform(13, 34))


def _crossing_traffic(crowd: _Crowd) -> None:
    """A car that waits in a side street, and people on the zebra crossing."""
    rng, layout = crowd.rng, crowd.layout
    for side, sign in enumerate((-1, 1)):
        cells = np.flatnonzero(layout.side_street[side])
        if len(cells) and rng.random() < 0.6:
            z = FIRST + STEP * float(cells[: int(8 / STEP)].mean())
            crowd.car(sign * (layout.line(side) + float(rng.uniform(-1, 3))), z + sign * 1.4, -sign * math.pi / 2)
    for z in layout.crossings:
        for _ in range(int(rng.integers(0, 4))):
            crowd.figure("person", float(rng.uniform(-layout.road[0], layout.road[1])), z + float(rng.uniform(-1, 1)))


def _walking(crowd: _Crowd) -> None:
    rng, layout = crowd.rng, crowd.layout
    for side, sign in enumerate((-1, 1)):
        low = layout.road[side] + layout.verge[side] + 0.5
        for _ in range(int(rng.integers(2, 7))):
            z = 7 + 55 * float(rng.random()) ** 1.5
            x = low + float(rng.uniform(0, layout.walk[side] - 1.1))
            for _ in range(1 + int(rng.random() < 0.3)):
                crowd.figure("person", sign * x, z)
                x, z = x + 0.55, z + float(rng.uniform(-0.3, 0.3))


def _cycling(crowd: _Crowd) -> None:
    rng, layout = crowd.rng, crowd.layout
    for _ in range(crowd.pick((0.2, 0.4, 0.25, 0.15))):
        side = int(rng.random() < 0.6)
        sign = 2 * side - 1
        x = sign * (layout.road[side] - layout.parking[side] - float(rng.uniform(0.4, 1.0)))
        turn = float(rng.uniform(0.35, 0.8)) * (1 if rng.random() < 0.5 else -1)
        crowd.figure("rider", x, float(rng.uniform(8, 34)), turn + (0 if side else math.pi), 0.05)
    for side, sign in enumerate((-1, 1)):
        if rng.random() < 0.35:
            z, x = float(rng.uniform(9, 26)), sign * (layout.line(side) - 0.5)
            for _ in range(int(rng.integers(1, 4))):
                if not crowd.closed(side, z):
                    crowd.figure("bicycle", x, z, float(rng.uniform(0.5, 1.2)) * -sign, 0.05)
                z += 1.0


def _planted(crowd: _Crowd) -> None:
    rng, layout = crowd.rng, crowd.layout
    kind = "slender tree" if crowd.town is TOWN_B else "tree"
    for side, sign in enumerate((-1, 1)):
        if rng.random() < (0.9 if layout.verge[side] else 0.45):
            z, pace = float(rng.uniform(5, 16)), float(rng.uniform(9, 16))
            while z < 110:
                if not crowd.closed(side, z):
                    crowd.figure(kind if rng.random() < 0.8 else "tree", sign * (layout.road[side] + 0.8), z, 0.0, 0.2)
                z += pace + float(rng.normal(0, 0.8))
    for side, z0, z1 in layout.gardens:
        sign = 2 * side - 1
        for _ in range(int(rng.integers(1, 4))):
            x, z = layout.line(side) + float(rng.uniform(1.8, 4.5)), float(rng.uniform(z0 + 1.5, z1 - 1.5))
            if 5 < z < 110:
                crowd.figure(kind if rng.random() < 0.6 else "tree", sign * x, z, 0.0, 0.25)
        for _ in range(int(rng.integers(0, 3))):
            z = float(rng.uniform(z0 + 1, z1 - 1))
            if z > 5:
                crowd.figure("bush", sign * (layout.line(side) + float(rng.uniform(0.7, 2))), z, 0.0, 0.3)


def _lamps(crowd: _Crowd) -> tuple[tuple[float, float, float], ...]:
    """Street lamps; the places (x, y, z) of their light."""
    rng, layout = crowd.rng, crowd.layout
    places = []
    tall = float(rng.uniform(6.0, 8.0))
    both = rng.random() < 0.4
    pace = float(rng.uniform(20, 28))
    start = float(rng.uniform(7, 20))
    for side, sign in enumerate((-1, 1)):
        z = start + (0 if both else pace / 2 * side)
        while z < 100:
            x = sign * (layout.road[side] + 0.45)
            crowd.put(figures.lamp(-sign, tall), x, z)
            places.append((x - sign * 1.7, tall + 0.1, z))
            z += pace
    return tuple(places)


def _furniture(crowd: _Crowd) -> None:
    """Signals at crossings, signs and bollards along the kerb."""
    rng, layout = crowd.rng, crowd.layout
    signs = "other sign" if crowd.town is TOWN_B else "sign"
    at = layout.crossings[0] - 2.2 if layout.crossings else float(rng.uniform(16, 48))
    if rng.random() < 0.75:
        for side, sign, kind in ((0, -1, "signal left"), (1, 1, "signal right")):
            crowd.put(_stock(kind, int(rng.integers(STOCK))), sign * (layout.road[side] + 0.35), at)
    for _ in range(int(rng.integers(3, 7))):
        side = int(rng.random() < 0.65)
        sign, z = 2 * side - 1, 9 + 42 * float(rng.random()) ** 1.3
        if not crowd.closed(side, z):
            crowd.figure(signs, sign * (layout.road[side] + 0.5), z, 0.0, 0.12)
    for side, sign in enumerate((-1, 1)):
        if rng.random() < 0.3:
            z = float(rng.uniform(6, 16))
            for k in range(int(rng.integers(4, 9))):
                crowd.put(figures.bollard(), sign * (layout.road[side] + 0.3), z + 1.8 * k)


def populate(rng: Generator, layout: Layout, town: Town) -> tuple[Mesh, tuple[tuple[float, float, float], ...]]:
    """All objects on the street ``layout`` of ``town``, and the places (x, y, z) of its street lamps' lights."""
    crowd = _Crowd(rng, layout, town)
    places = _lamps(crowd)
    for fill in (_parked, _moving, _crossing_traffic, _walking, _cycling, _planted, _furniture):
        fill(crowd)
    return merge(crowd.objects), places
