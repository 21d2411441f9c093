"""The two towns that `streets` is built from: proportions, materials and camera pose of each.

Lengths are metres, colours are display values in [0, 1] (their square is the linear reflectance).
"""

from dataclasses import dataclass

__all__ = [
    "BICYCLE",
    "BUILDING",
    "BUS",
    "CAR",
    "FENCE",
    "LIGHT",
    "PERSON",
    "POLE",
    "RIDER",
    "ROAD",
    "SIDEWALK",
    "SIGN",
    "SKY",
    "TERRAIN",
    "TOWN_A",
    "TOWN_B",
    "TRUCK",
    "VEGETATION",
    "WALL",
    "Colour",
    "Town",
]

ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN, VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS = (
    range(16)
)
BICYCLE = 18

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Town:
    """How a town is built. Pairs are the lowest and highest value of a uniform draw.

    Attributes:
        road: half width of the carriageway without parking lanes.
        walk: width of a pavement.
        setback: depth of the front garden of houses that have one.
        lot: length of a house along the street.
        floors: number of floors, integers, both included.
        floor: height of a floor.
        bay: distance from one window to the next.
        window: share of bay and floor that a window fills, (width pair, height pair).
        gable: share of houses whose gable faces the street.
        shop: share of houses with a shop on the ground floor.
        garden: share of lots with, in place of a house on the pavement, a garden, a yard or a park.
        facades, trims, roofs, doors: materials.
        marking: colour of the centre line.
        eye: height of the camera.
        horizon: height of the horizon in the image, as a share from the top.
        cars: paints.
    """

    road: tuple[float, float]
    walk: tuple[float, float]
    setback: tuple[float, float]
    lot: tuple[float, float]
    floors: tuple[int, int]
    floor: tuple[float, float]
    bay: tuple[float, float]
    window: tuple[tuple[float, float], tuple[float, float]]
    gable: float
    shop: float
    garden: float
    facades: tuple[Colour, ...]
    trims: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    doors: tuple[Colour, ...]
    marking: Colour
    eye: tuple[float, float]
    horizon: tuple[float, float]
    cars: tuple[Colour, ...]


TOWN_A = Town(
    road=(3.2, 4.6),
    walk=(2.4, 4.0),
    setback=(4.0, 7.0),
    lot=(9.0, 19.0),
    floors=(2, 5),
    floor=(2.9, 3.5),
    bay=(2.2, 3.2),
    window=((0.38, 0.55), (0.5, 0.62)),
    gable=0.0,
    shop=0.45,
    garden=0.3,
    facades=(
        (0.86, 0.80, 0.66),
        (0.80, 0.66, 0.45),
        (0.76, 0.60, 0.54),
        (0.72, 0.71, 0.68),
        (0.90, 0.88, 0.82),
        (0.66, 0.70, 0.64),
        (0.58, 0.42, 0.34),
        (0.62, 0.66, 0.72),
    ),
    trims=((0.93, 0.91, 0.86), (0.70, 0.66, 0.58), (0.85, 0.82, 0.78)),
    roofs=((0.48, 0.30, 0.24), (0.36, 0.34, 0.35), (0.55, 0.36, 0.27)),
    doors=((0.30, 0.19, 0.12), (0.16, 0.26, 0.20), (0.25, 0.25, 0.30)),
    marking=(0.92, 0.92, 0.90),
    eye=(1.25, 1.65),
    horizon=(0.40, 0.47),
    cars=(
        (0.88, 0.88, 0.88),
        (0.16, 0.16, 0.18),
        (0.55, 0.57, 0.60),
        (0.16, 0.24, 0.46),
        (0.62, 0.13, 0.13),
        (0.30, 0.31, 0.33),
        (0.36, 0.42, 0.36),
    ),
)

TOWN_B = Town(
    road=(5.0, 6.6),
    walk=(1.6, 2.6),
    setback=(3.0, 6.0),
    lot=(5.0, 8.0),
    floors=(2, 3),
    floor=(2.6, 3.0),
    bay=(1.7, 2.3),
    window=((0.5, 0.68), (0.42, 0.52)),
    gable=0.8,
    shop=0.15,
    garden=0.4,
    facades=(
        (0.55, 0.28, 0.22),
        (0.62, 0.36, 0.26),
        (0.44, 0.24, 0.21),
        (0.70, 0.50, 0.38),
        (0.38, 0.36, 0.37),
        (0.78, 0.76, 0.74),
    ),
    trims=((0.95, 0.95, 0.95), (0.22, 0.24, 0.28), (0.88, 0.84, 0.72)),
    roofs=((0.26, 0.27, 0.31), (0.34, 0.24, 0.22), (0.30, 0.33, 0.33)),
    doors=((0.58, 0.12, 0.12), (0.12, 0.28, 0.48), (0.14, 0.34, 0.20)),
    marking=(0.90, 0.68, 0.16),
    eye=(2.1, 2.6),
    horizon=(0.29, 0.36),
    cars=(
        (0.90, 0.70, 0.12),
        (0.92, 0.92, 0.90),
        (0.12, 0.40, 0.42),
        (0.40, 0.22, 0.14),
        (0.70, 0.72, 0.74),
        (0.48, 0.10, 0.22),
    ),
)
