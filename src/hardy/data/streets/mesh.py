"""Flat-faced objects of `streets`: a list of coloured polygons in metres, and how to build and place one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hardy.data.streets.town import Colour

__all__ = [
    "HEADLIGHT",
    "INTERIOR",
    "LAMP",
    "REARLIGHT",
    "SIGNAL",
    "SIGNPLATE",
    "Builder",
    "Mesh",
    "Placed",
    "bar",
    "disc",
    "merge",
]

HEADLIGHT, REARLIGHT, SIGNAL, LAMP, INTERIOR, SIGNPLATE = range(1, 7)
"""Kinds of faces that can give light (0 is none)."""


@dataclass(frozen=True)
class Mesh:
    """Polygons with their corners in one array.

    Attributes:
        points: (P, 3) float64 corners, metres: x right, y up, z ahead.
        sizes: (F,) corners per face.
        label: (F,) uint8 class.
        colour: (F, 3) float32 linear reflectance.
        lamp: (F,) uint8 kind of light.
        layer: (F,) int8; a face is drawn over the faces of lower layers of its own object.
        solid: (F,) bool; a solid face is seen from its outer side only.
        leaf: (F,) float32 strength of leafy mottling.
        owner: (F,) int32 number of the object.
        footprint: (half width, half length) of the dark contact with the ground, 0 for none; one pair per object.
        centre: (O, 3) place and heading (x, z, heading) of each object.
    """

    points: np.ndarray
    sizes: np.ndarray
    label: np.ndarray
    colour: np.ndarray
    lamp: np.ndarray
    layer: np.ndarray
    solid: np.ndarray
    leaf: np.ndarray
    owner: np.ndarray
    footprint: np.ndarray
    centre: np.ndarray


class Placed(NamedTuple):
    """An object at street place (x, z), its z axis turned ``heading`` radians to the right, scaled and tinted."""

    mesh: Mesh
    x: float
    z: float
    heading: float = 0.0
    scale: float = 1.0
    tint: Colour = (1.0, 1.0, 1.0)


def merge(objects: Sequence[Placed]) -> Mesh:
    """All objects in street coordinates, numbered in order."""
    meshes = [each.mesh for each in objects]
    joined = {
        name: np.concatenate([getattr(mesh, name) for mesh in meshes])
        for name in ("points", "sizes", "label", "colour", "lamp", "layer", "solid", "leaf", "footprint", "centre")
    }
    x, z, heading, scale = np.array([each[1:5] for each in objects]).T
    cosine, sine = np.cos(heading) * scale, np.sin(heading) * scale
    owner = np.repeat(np.arange(len(meshes), dtype=np.int32), [len(mesh.sizes) for mesh in meshes])
    corner = np.repeat(np.arange(len(meshes)), [len(mesh.points) for mesh in meshes])
    local, centre = joined.pop("points"), joined.pop("centre")
    points = np.empty_like(local)
    points[:, 0] = local[:, 0] * cosine[corner] + local[:, 2] * sine[corner] + x[corner]
    points[:, 1] = local[:, 1] * scale[corner]
    points[:, 2] = local[:, 2] * cosine[corner] - local[:, 0] * sine[corner] + z[corner]
    right, ahead = centre[:, 0], centre[:, 1]
    place = np.stack([x + cosine * right + sine * ahead, z + cosine * ahead - sine * right, heading], axis=-1)
    tint = np.array([each.tint for each in objects], np.float32)
    colour = np.minimum(joined.pop("colour") * tint[owner], np.float32(0.95))
    footprint = joined.pop("footprint") * scale[:, None]
    return Mesh(points=points, colour=colour, owner=owner, footprint=footprint, centre=place, **joined)


class Builder:
    """Collects the faces of one object of class ``label``."""

    def __init__(self, label: int, footprint: tuple[float, float] = (0.0, 0.0), middle: float = 0.7) -> None:
        self.label = label
        self.footprint = footprint
        self.middle = np.array([0.0, middle, 0.0])
        self.points: list[np.ndarray] = []
        self.rows: list[tuple[int, Colour, int, int, bool, float]] = []

    def face(
        self,
        corners: Sequence[Sequence[float]] | np.ndarray,
        colour: Colour,
        *,
        layer: int = 0,
        lamp: int = 0,
        solid: bool = False,
        leaf: float = 0.0,
        label: int | None = None,
    ) -> None:
        """Add a polygon of display ``colour``; a solid one is turned to look away from the object's middle."""
        points = np.asarray(corners, dtype=np.float64)
        if solid:
            normal = np.cross(points[1] - points[0], points[2] - points[0])
            if float(normal @ (points.mean(axis=0) - self.middle)) < 0:
                points = points[::-1]
        self.points.append(points)
        self.rows.append((self.label if label is None else label, colour, lamp, layer, solid, leaf))

    def flat(self, corners: Sequence[tuple[float, float]], colour: Colour, z: float = 0.0, **how: float) -> None:
        """Add a polygon that faces along the street, given as (x, y) corners."""
        self.face([(x, y, z) for x, y in corners], colour, **how)  # type: ignore[arg-type]

    def side(self, corners: Sequence[tuple[float, float]], colour: Colour, x: float = 0.0, **how: float) -> None:
        """Add a polygon in the plane of given x, given as (z, y) corners."""
        self.face([(x, y, z) for z, y in corners], colour, **how)  # type: ignore[arg-type]

    def build(self, centre: tuple[float, float] = (0.0, 0.0)) -> Mesh:
        """The object, its sorting centre at ``centre`` (x, z)."""
        label, colour, lamp, layer, solid, leaf = zip(*self.rows, strict=True)
        return Mesh(
            np.concatenate(self.points),
            np.array([len(points) for points in self.points]),
            np.array(label, np.uint8),
            np.array(colour, np.float32) ** 2,
            np.array(lamp, np.uint8),
            np.array(layer, np.int8),
            np.array(solid, bool),
            np.array(leaf, np.float32),
            np.zeros(len(self.rows), np.int32),
            np.array([self.footprint]),
            np.array([[*centre, 0.0]]),
        )


def disc(x: float, y: float, radius: float, corners: int = 12, turn: float = 0.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon around (x, y)."""
    angles = (turn + 2 * math.pi * k / corners for k in range(corners))
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def bar(
    x0: float, y0: float, x1: float, y1: float, thick: float, end: float | None = None
) -> list[tuple[float, float]]:
    """Corners of a bar from (x0, y0) to (x1, y1), ``thick`` wide, ``end`` wide at its far end."""
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
    far = thick if end is None else end
    return [
        (x0 + nx * thick, y0 + ny * thick),
        (x1 + nx * far, y1 + ny * far),
        (x1 - nx * far, y1 - ny * far),
        (x0 - nx * thick, y0 - ny * thick),
    ]
