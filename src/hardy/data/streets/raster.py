"""Draws the objects of `streets` into an index image, far ones first, and knows each pixel's face and distance.

The label and the colour of a pixel come from the same face index, so the mask is exact by construction. The inverse
depth of a plane is affine in the image, so each face keeps three numbers from which every pixel's depth follows.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from hardy.data.streets.mesh import Mesh
from hardy.data.streets.view import Camera

__all__ = ["Drawn", "contact_shadow", "draw", "sun_shadow"]

NEAR = 0.5
"""Objects with a corner nearer than this (metres ahead) are left out."""


DETAIL = 1.2
"""What is painted on an object and smaller than this (pixels) is left out."""


@dataclass
class Drawn:
    """The objects in the image.

    Attributes:
        pixel: (P,) flat indices of the pixels that show an object.
        face: (P,) number of the face there.
        depth: (P,) float32 metres along the optical axis.
        normal: (F, 3) unit normals towards the camera, in street axes.
    """

    pixel: np.ndarray
    face: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


def _visible(points: np.ndarray, mesh: Mesh, starts: np.ndarray) -> np.ndarray:
    """Which owners are completely ahead of the camera."""
    count = int(mesh.owner[-1]) + 1
    nearest = np.full(count, np.inf)
    np.minimum.at(nearest, mesh.owner, np.minimum.reduceat(points[:, 2], starts))
    return nearest > NEAR


def _planes(points: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normal (F, 3) and offset (F,) of each face's plane, ``normal @ point = offset``, offset < 0 seen from outside."""
    first = points[starts]
    normal = np.cross(points[starts + 1] - first, points[starts + 2] - first)
    return normal, (normal * first).sum(axis=1)


def draw(camera: Camera, mesh: Mesh, depth: np.ndarray, ground: np.ndarray) -> Drawn:
    """Draw ``mesh`` over an empty street of given (H, W) ``depth``; faces hide objects, the ``ground`` never does."""
    starts = np.concatenate([[0], np.cumsum(mesh.sizes)[:-1]])
    points = camera.enter(mesh.points)
    normal, offset = _planes(points, starts)
    ahead = _visible(points, mesh, starts)[mesh.owner]
    shown = ahead & ((offset < 0) | ~mesh.solid)
    points[:, 2] = np.maximum(points[:, 2], NEAR / 2)
    corner = camera.project(points) - 0.5
    centre = camera.enter(np.stack([mesh.centre[:, 0], np.zeros(len(mesh.centre)), mesh.centre[:, 1]], axis=-1))
    middle = np.add.reduceat(points[:, 2], starts) / mesh.sizes
    order = np.lexsort((-middle, mesh.layer, mesh.owner, -centre[:, 2][mesh.owner]))
    height, width = camera.size
    low, high = np.minimum.reduceat(corner, starts), np.maximum.reduceat(corner, starts)
    shown &= (high[:, 0] > -1) & (low[:, 0] < width + 1)
    shown &= (mesh.layer <= 0) | ((high - low).max(axis=1) > DETAIL)
    canvas = Image.new("I", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    flat = corner.ravel().tolist()
    ends = (2 * (starts + mesh.sizes)).tolist()
    begins = (2 * starts).tolist()
    for face in order[shown[order]].tolist():
        pen.polygon(flat[begins[face] : ends[face]], fill=face + 1)
    index = np.asarray(canvas, dtype=np.int32).ravel()
    return _resolve(camera, index, normal, offset, depth, ground)


def _resolve(
    camera: Camera, index: np.ndarray, normal: np.ndarray, offset: np.ndarray, depth: np.ndarray, ground: np.ndarray
) -> Drawn:
    """Depth of every drawn pixel; those behind a face of the street are dropped."""
    pixel = np.flatnonzero(index)
    face = index[pixel] - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = np.nan_to_num(normal / offset[:, None], posinf=0.0, neginf=0.0).astype(np.float32)
    width = camera.size[1]
    column = camera.columns().take(pixel % width)
    row = camera.rows().take(pixel // width)
    inverse = plane[:, 0].take(face) * column - plane[:, 1].take(face) * row + plane[:, 2].take(face)
    found = 1 / np.clip(inverse, 1 / 400, 1 / NEAR)
    behind = depth.ravel()[pixel]
    open_ = np.zeros(depth.size, bool)
    open_[ground] = True
    keep = open_[pixel] | (found < behind)
    unit = -normal * np.sign(offset)[:, None] / np.maximum(np.linalg.norm(normal, axis=1), 1e-9)[:, None]
    return Drawn(pixel[keep], face[keep], found[keep], unit.astype(np.float32))


def sun_shadow(camera: Camera, mesh: Mesh, sun: np.ndarray) -> np.ndarray:
    """(H, W) float32 share of sunlight that objects take from the ground; ``sun`` (3,) points to the sun."""
    height, width = camera.size
    starts = np.concatenate([[0], np.cumsum(mesh.sizes)[:-1]])
    lift = mesh.points[:, 1:2] / sun[1]
    points = mesh.points - lift * sun
    points[:, 1] = 0.0
    points = camera.enter(points)
    casts = (mesh.layer <= 0) | (mesh.leaf > 0)
    lowest = np.minimum.reduceat(points[:, 2], starts)
    casts &= (lowest > NEAR) & (lowest < 70)
    points[:, 2] = np.maximum(points[:, 2], NEAR)
    flat = (camera.project(points) - 0.5).ravel().tolist()
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for face in np.flatnonzero(casts).tolist():
        begin = 2 * int(starts[face])
        pen.polygon(flat[begin : begin + 2 * int(mesh.sizes[face])], fill=255)
    return np.asarray(canvas, dtype=np.float32) * np.float32(1 / 255)


def contact_shadow(camera: Camera, mesh: Mesh) -> np.ndarray:
    """(H, W) float32 darkness of the ground right under the objects."""
    height, width = camera.size
    half = mesh.footprint * 1.08
    turn = mesh.centre[:, 2]
    ahead = np.stack([np.sin(turn), np.cos(turn)], axis=-1)[:, None, None, :]
    right = np.stack([np.cos(turn), -np.sin(turn)], axis=-1)[:, None, None, :]
    place = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])[None, :, None, :] * half[:, None, None, :]
    footprint = mesh.centre[:, None, None, :2] + place[..., :1] * right + place[..., 1:] * ahead
    footprint = footprint[:, :, 0]
    points = camera.enter(np.stack([footprint[..., 0], np.zeros(footprint.shape[:2]), footprint[..., 1]], axis=-1))
    keep = (points[..., 2].min(axis=1) > NEAR) & (half[:, 0] > 0)
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for corners in (camera.project(points[keep]) - 0.5).reshape(-1, 8).tolist():
        pen.polygon(corners, fill=255)
    blurred = canvas.filter(ImageFilter.BoxBlur(max(1, height // 200)))
    return np.asarray(blurred, dtype=np.float32) * np.float32(1 / 255)
