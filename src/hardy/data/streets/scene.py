"""One scene of `streets` before light: the street, what stands on it, and what every pixel shows."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from hardy.data.streets.domains import Appearance
from hardy.data.streets.facade import Painted, paint_upright
from hardy.data.streets.ground import Ground, paint_ground
from hardy.data.streets.layout import Layout, draw_layout
from hardy.data.streets.light import Surface
from hardy.data.streets.mesh import Mesh
from hardy.data.streets.noise import grain, tile
from hardy.data.streets.raster import Drawn, draw
from hardy.data.streets.town import SKY, Town
from hardy.data.streets.traffic import populate
from hardy.data.streets.view import Camera, View, survey

__all__ = ["Scene", "stage"]


@dataclass
class Scene:
    """A street as one camera sees it, without light.

    Attributes:
        camera: the camera.
        layout: the street.
        mesh: its objects.
        lamps: places of the street lamps.
        label: (H, W) uint8 class of every pixel.
        depth: (H, W) float32 metres along the optical axis, infinite in the sky.
        albedo: (3, H*W) float32 linear reflectance.
        view, ground, upright, drawn: what each pixel shows, by kind.
    """

    camera: Camera
    layout: Layout
    mesh: Mesh
    lamps: tuple[tuple[float, float, float], ...]
    label: np.ndarray
    depth: np.ndarray
    albedo: np.ndarray
    view: View
    ground: Ground
    upright: Painted
    drawn: Drawn
    surface: Surface

    def distance(self) -> np.ndarray:
        """(H, W) metres from the camera along each pixel's ray, infinite in the sky."""
        column, row = self.camera.columns()[None, :], self.camera.rows()[:, None]
        return np.asarray(self.depth * np.sqrt(1 + column**2 + row**2))


def _camera(rng: Generator, layout: Layout, town: Town, size: tuple[int, int]) -> Camera:
    left, right = (layout.road[side] - layout.parking[side] for side in range(2))
    lane = (right - left) / 2 + (right + left) / 4 / layout.lanes
    return Camera(
        size,
        lane + float(rng.normal(0, 0.25)),
        float(rng.uniform(*town.eye)),
        float(rng.normal(0, 0.035)),
        float(rng.uniform(*town.horizon)),
        layout.bend,
    )


def _surface(camera: Camera, depth: np.ndarray) -> Surface:
    near = np.where(np.isfinite(depth), depth, np.float32(500))
    x, z = camera.leave(near * camera.columns()[None, :], near)
    y = near * -camera.rows()[:, None]
    y += camera.eye
    return Surface(x.ravel(), y.ravel(), z.ravel(), near.ravel())


def _raise(camera: Camera, surface: Surface, drawn: Drawn) -> None:
    """Move ``surface`` forward to the objects, in place."""
    width = camera.size[1]
    column, row = camera.columns().take(drawn.pixel % width), camera.rows().take(drawn.pixel // width)
    x, z = camera.leave(drawn.depth * column, drawn.depth)
    surface.x[drawn.pixel], surface.z[drawn.pixel] = x, z
    surface.y[drawn.pixel] = camera.eye - drawn.depth * row
    surface.depth[drawn.pixel] = drawn.depth


def stage(rng: Generator, look: Appearance, size: tuple[int, int], seed: int) -> Scene:
    """Draw a street, its objects and the camera, and find what every pixel shows."""
    town = look.town
    layout = draw_layout(rng, town)
    mesh, lamps = populate(rng, layout, town)
    camera = _camera(rng, layout, town, size)
    view = survey(camera, layout.walls)
    surface = _surface(camera, view.depth)
    at, up = view.ground, view.upright
    pose = (camera.focal, camera.eye)
    ground = paint_ground(
        layout, surface.x[at], surface.z[at], surface.depth[at], pose, town.marking, (seed, look.texture)
    )
    upright = paint_upright(view, layout.walls, surface.y[up], camera.focal, seed, look.texture)
    drawn = draw(camera, mesh, view.depth, at)
    label = np.full(size[0] * size[1], SKY, np.uint8)
    albedo = np.zeros((3, label.size), np.float32)
    objects = _object_paint(camera, mesh, drawn, seed, look.texture)
    parts = (at, ground.label, ground.albedo), (up, upright.label, upright.albedo)
    for pixel, number, paint in (*parts, (drawn.pixel, mesh.label[drawn.face], objects)):
        label[pixel] = number
        for channel in range(3):
            albedo[channel][pixel] = paint[channel]
    depth = view.depth.copy()
    depth.ravel()[drawn.pixel] = drawn.depth
    _raise(camera, surface, drawn)
    return Scene(camera, layout, mesh, lamps, label.reshape(size), depth, albedo, view, ground, upright, drawn, surface)


def _object_paint(camera: Camera, mesh: Mesh, drawn: Drawn, seed: int, texture: float) -> np.ndarray:
    paint = mesh.colour.T.take(drawn.face, axis=1)
    leaf = mesh.leaf.take(drawn.face)
    width = camera.size[1]
    fine = np.float32(420 / camera.focal)
    noise = grain(tile(seed, 0.7), (drawn.pixel // width) * fine + drawn.face * 37, (drawn.pixel % width) * fine)
    paint *= np.clip(1 + np.float32(texture) * (0.32 * leaf + 0.02) * noise, 0.2, 2)
    return paint
