"""The camera of `streets` and what each pixel of the empty street shows: ground, upright face or sky, and how far.

A pinhole camera with level horizon looks along the street. Its vertical picture lines are vertical in the world, so
an upright face has one distance per image column: all faces are intersected with all columns in one plan-view pass,
and a pixel shows the nearest face whose top is above it, unless the ground is nearer still.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardy.data.streets.layout import Wall

__all__ = ["Camera", "View", "survey"]

LAYERS = 6
"""How many faces behind one another a column keeps."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; pixels are square and the focal length is ``zoom`` times the geometric mean of the sides.

    Attributes:
        size: (height, width) of the image.
        x: its place to the right of the centre line, metres.
        eye: its height over the ground, metres.
        yaw: its turn to the right, radians.
        horizon: row of the horizon as a share of the height.
        bend: curvature of the street it stands in.
        zoom: focal length over the geometric mean of the sides.
    """

    size: tuple[int, int]
    x: float
    eye: float
    yaw: float
    horizon: float
    bend: float
    zoom: float = 0.9

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.zoom * math.sqrt(self.size[0] * self.size[1])

    def columns(self) -> np.ndarray:
        """(W,) float32 tangent of each column's direction to the right."""
        width = self.size[1]
        return ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / np.float32(self.focal)

    def rows(self) -> np.ndarray:
        """(H,) float32 tangent of each row's direction downwards."""
        height = self.size[0]
        return ((np.arange(height, dtype=np.float32) + 0.5) - height * self.horizon) / np.float32(self.focal)

    def enter(self, points: np.ndarray) -> np.ndarray:
        """Street points (..., 3) in camera coordinates: right, up from the eye, ahead."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        x = x + self.bend * np.maximum(z, 0) ** 2 - self.x
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return np.stack([c * x - s * z, y - self.eye, s * x + c * z], axis=-1)

    def leave(self, right: np.ndarray, ahead: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Street (x, z) of camera coordinates (right, ahead)."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        z = c * ahead - s * right
        x = c * right + s * ahead + self.x
        return x - self.bend * np.maximum(z, 0) ** 2, z

    def project(self, points: np.ndarray) -> np.ndarray:
        """Camera points (..., 3) as image positions (..., 2): column, row, in pixels."""
        ahead = points[..., 2]
        column = points[..., 0] / ahead * self.focal + self.size[1] / 2
        row = -points[..., 1] / ahead * self.focal + self.size[0] * self.horizon
        return np.stack([column, row], axis=-1)


@dataclass
class View:
    """What the empty street shows.

    Attributes:
        depth: (H, W) float32 distance along the optical axis in metres, infinite in the sky.
        ground: flat indices of the pixels that show the ground.
        upright: flat indices of the pixels that show a face.
        wall: (P,) number of the face at each of `upright`.
        along: (P,) metres along that face.
        scale: (P,) pixels per metre along that face.
        top: (P,) height of the face there.
        nearest: (W,) depth of the nearest face of each column.
    """

    depth: np.ndarray
    ground: np.ndarray
    upright: np.ndarray
    wall: np.ndarray
    along: np.ndarray
    scale: np.ndarray
    top: np.ndarray
    nearest: np.ndarray


def _ends(camera: Camera, walls: Sequence[Wall]) -> tuple[np.ndarray, np.ndarray]:
    layout = np.array([wall[:4] for wall in walls], np.float32)
    first = np.stack([layout[:, 0], np.zeros(len(layout), np.float32), layout[:, 1]], axis=-1)
    last = np.stack([layout[:, 2], np.zeros(len(layout), np.float32), layout[:, 3]], axis=-1)
    return camera.enter(first)[:, ::2].astype(np.float32), camera.enter(last)[:, ::2].astype(np.float32)


def _hits(camera: Camera, walls: Sequence[Wall]) -> tuple[np.ndarray, ...]:
    """The `LAYERS` nearest faces of every column, each (LAYERS, W): depth, face, place on the face in [0, 1], and
    pixels per metre along the face."""
    first, last = _ends(camera, walls)
    seen = (first[:, 1] > 0.3) | (last[:, 1] > 0.3)
    numbers = np.flatnonzero(seen)
    first, last = first[seen], last[seen]
    tangent = camera.columns()[:, None]
    step = last - first
    slant = step[:, 0] - tangent * step[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        place = (tangent * first[:, 1] - first[:, 0]) / slant
        depth = first[:, 1] + place * step[:, 1]
    miss = ~((place >= -1e-4) & (place <= 1.0001) & (depth > 0.3))
    depth[miss] = np.inf
    if depth.shape[1] > LAYERS:
        keep = np.argpartition(depth, LAYERS, axis=1)[:, :LAYERS]
    else:
        keep = np.broadcast_to(np.arange(depth.shape[1]), depth.shape)
    near = np.take_along_axis(depth, keep, 1)
    order = np.argsort(near, axis=1, kind="stable")
    keep = np.take_along_axis(keep, order, 1)
    near = np.take_along_axis(near, order, 1)
    place = np.take_along_axis(place, keep, 1)
    turn = np.abs(first[:, 1] * step[:, 0] - first[:, 0] * step[:, 1]) * np.hypot(step[:, 0], step[:, 1])
    stretch = turn[keep] / np.take_along_axis(slant, keep, 1) ** 2 / np.float32(camera.focal)
    place = np.where(np.isfinite(near), place, 0)
    scale = 1 / np.clip(stretch, 1e-3, 1e3)
    return near.T.copy(), numbers[keep].T.copy(), place.T.copy(), scale.T.copy()


def _tops(walls: Sequence[Wall], face: np.ndarray, place: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Height of the faces at the hits: flat, gabled, stepped, or ragged where it is a hedge."""
    height = np.array([wall.height for wall in walls], np.float32)
    rise = np.array([wall.rise for wall in walls], np.float32)
    stepped = np.array([wall.pattern == 1 for wall in walls])
    ragged = np.array([0.18 if wall.label == 8 else 0.0 for wall in walls], np.float32)
    gable = 1 - np.abs(2 * place - 1)
    gable = np.where(stepped[face], np.floor(gable * 4 + 0.5) / 4, gable)
    metres = place * length[face]
    wave = np.sin(metres * 1.7 + face) * 0.5 + np.sin(metres * 4.3 + face * 3) * 0.3 + np.sin(metres * 9.1) * 0.2
    tops = height[face] * (1 + ragged[face] * wave) + rise[face] * gable
    return np.asarray(tops, np.float32)


def survey(camera: Camera, walls: Sequence[Wall]) -> View:
    """What ``camera`` sees of the ground and of ``walls``."""
    height, width = camera.size
    near, face, place, scale = _hits(camera, walls)
    layout = np.array([wall[:4] for wall in walls], np.float32)
    length = np.hypot(layout[:, 2] - layout[:, 0], layout[:, 3] - layout[:, 1])
    tops = _tops(walls, face, place, length)
    rows = camera.rows()[:, None]
    horizon = (camera.eye - tops) / near
    horizon[~np.isfinite(near)] = np.inf
    edge = np.minimum.accumulate(horizon, axis=0)
    layer = np.zeros((height, width), np.uint8)
    for line in edge:
        layer += rows < line
    deep = np.concatenate([near, np.full((1, width), np.inf, np.float32)])
    column = np.arange(width)
    depth = deep[layer, column]
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0, camera.eye / rows, np.inf).astype(np.float32)
    on_ground = floor < depth
    np.copyto(depth, floor, where=on_ground)
    upright = np.flatnonzero(~on_ground & (layer < len(near)))
    hit = layer.ravel()[upright].astype(np.int64) * width + upright % width
    wall = face.ravel()[hit]
    return View(
        depth,
        np.flatnonzero(on_ground),
        upright,
        wall,
        (place * length[face]).ravel()[hit],
        scale.ravel()[hit],
        tops.ravel()[hit],
        near[0],
    )
