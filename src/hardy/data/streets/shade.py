"""Light on a scene of `streets`: what each pixel's surface sends to the camera under clear air."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from hardy.data.streets import light
from hardy.data.streets.domains import Appearance
from hardy.data.streets.raster import contact_shadow, sun_shadow
from hardy.data.streets.scene import Scene
from hardy.data.streets.town import SKY, TERRAIN
from hardy.data.streets.weather import paint_sky

__all__ = ["Weather", "shade"]


@dataclass(frozen=True)
class Weather:
    """The random values of one image from its domain's ranges: extinction in 1/metre, share of lit windows, the sun
    (3,)."""

    haze: float
    windows: float
    sun: np.ndarray


def _incidence(scene: Scene, sun: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H*W,) cosine towards the sun, and share of the open sky's light, of every pixel."""
    size = scene.label.size
    direct, open_ = np.zeros(size, np.float32), np.ones(size, np.float32)
    direct[scene.view.ground] = sun[1]
    walls = np.array([wall[:4] for wall in scene.layout.walls])
    normal = np.stack([walls[:, 3] - walls[:, 1], walls[:, 0] - walls[:, 2]], axis=-1)
    normal /= np.maximum(np.hypot(normal[:, 0], normal[:, 1]), 1e-6)[:, None]
    centre = walls[:, :2] - (scene.camera.x, 0.0)
    normal *= -np.sign((normal * centre).sum(axis=1))[:, None]
    toward = np.maximum(normal @ sun[[0, 2]], 0).astype(np.float32)
    up = scene.view.upright
    direct[up] = toward.take(scene.view.wall)
    height = np.clip(scene.surface.y[up] * np.float32(0.06), 0, 1)
    open_[up] = 0.52 + 0.2 * height
    drawn = scene.drawn
    face = np.maximum(drawn.normal @ sun, 0) * scene.mesh.solid + 0.55 * ~scene.mesh.solid
    shade_ = np.where(scene.mesh.solid, 0.62 + 0.38 * np.clip(drawn.normal[:, 1], -0.6, 1), 0.72)
    direct[drawn.pixel] = face.astype(np.float32).take(drawn.face)
    open_[drawn.pixel] = shade_.astype(np.float32).take(drawn.face)
    return direct, open_


def _cover_with_snow(scene: Scene, amount: float) -> None:
    """Whiten surfaces open to the sky, in place: ground less its wheel tracks, roofs, ledges, car tops, crowns."""
    ground, mesh, drawn = scene.ground, scene.mesh, scene.drawn
    share = np.array([0.62, 0.88, 0.97], np.float32)[np.minimum(ground.label, 2)]
    share += np.float32(0.12) * ground.hollow
    share -= np.float32(0.55) * ground.track
    level = np.where(mesh.solid & (mesh.layer == 0), np.clip(drawn.normal[:, 1] * 1.6 - 0.35, 0, 0.92), 0)
    level = np.where(mesh.leaf > 0, np.clip(mesh.colour[:, 1] * 3.4 - 0.1, 0.08, 0.75), level)
    cover = np.zeros(scene.label.size, np.float32)
    cover[scene.view.ground] = np.clip(share, 0.05, 0.97)
    cover[scene.view.upright] = scene.upright.cover
    on_leaf = 0.35 + 5 * scene.albedo[1][drawn.pixel] - 1
    on_leaf *= mesh.leaf.take(drawn.face)
    cover[drawn.pixel] = np.clip(level.astype(np.float32).take(drawn.face) * (1 + on_leaf), 0, 0.95)
    cover *= amount
    for channel, white in zip(scene.albedo, (0.82, 0.84, 0.88), strict=True):
        channel += (white - channel) * cover


def _own_light(scene: Scene, look: Appearance, windows: float) -> tuple[np.ndarray, np.ndarray]:
    """Emission of lamps, signals and lit windows: flat indices of their pixels (P,) and their light (3, P)."""
    table = light.emission_table(look, scene.mesh.lamp, scene.mesh.colour)
    lamp = np.flatnonzero((scene.mesh.lamp > 0).take(scene.drawn.face))
    pixel, shine = scene.drawn.pixel[lamp], table.take(scene.drawn.face[lamp], axis=1)
    if windows == 0:
        return pixel, shine
    hidden = np.zeros(scene.label.size, bool)
    hidden[scene.drawn.pixel] = True
    upright = scene.upright
    lit = np.flatnonzero((upright.glow > 1 - windows) & (upright.glass > 0) & ~hidden[scene.view.upright])
    tone = (upright.glow[lit] * 37) % 1
    power = upright.glass[lit] * (0.3 + look.lamps) * (0.35 + 0.5 * tone)
    pane = np.stack([power * (warm + (cool - warm) * tone) for warm, cool in ((1, 0.75), (0.66, 0.78), (0.28, 0.72))])
    return np.concatenate([pixel, scene.view.upright[lit]]), np.concatenate([shine, pane], axis=1)


def _cast_shadows(scene: Scene, direct: np.ndarray, share: float, sun: np.ndarray) -> None:
    """Remove the sunlight in the shadow of objects or houses, in place."""
    ground = scene.view.ground
    direct[ground] *= 1 - np.float32(share) * sun_shadow(scene.camera, scene.mesh, sun).ravel()[ground]
    blocked = light.house_shadow(scene.layout, scene.surface, sun)
    blocked *= -share
    blocked += 1
    direct *= blocked


def shade(scene: Scene, look: Appearance, weather: Weather, rng: Generator, seed: int) -> np.ndarray:
    """(3, H, W) float32 linear light that reaches the camera under clear air; overwrites ``scene.albedo``."""
    size = scene.camera.size
    if look.snow:
        _cover_with_snow(scene, look.snow)
    direct, open_ = _incidence(scene, weather.sun)
    ground = scene.view.ground
    open_[ground] *= 1 - 0.7 * contact_shadow(scene.camera, scene.mesh).ravel()[ground]
    if look.shadow:
        _cast_shadows(scene, direct, look.shadow, weather.sun)
    if look.lamps:
        lamps = light.lamp_light(scene.surface, scene.lamps, 6)
        lamps *= 0.45 * look.lamps
        head = light.headlight(scene.surface, scene.camera.columns())
        head *= 0.9 * look.lamps
    picture = scene.albedo
    for channel in range(3):
        fall = open_ * look.sky[channel]
        fall += direct * look.sun[channel]
        if look.lamps:
            fall += lamps * light.WARM[channel]
            fall += head * (1.0, 0.94, 0.82)[channel]
        picture[channel] *= fall
    pixel, shine = _own_light(scene, look, weather.windows)
    for channel in range(3):
        picture[channel][pixel] += shine[channel]
    sky = np.flatnonzero(scene.label.ravel() == SKY)
    column, row = scene.camera.columns().take(sky % size[1]), scene.camera.rows().take(sky // size[1])
    for channel, air in zip(picture, paint_sky(look, rng, column, row, seed), strict=True):
        channel[sky] = air
    if look.wet:
        _wet(scene, picture, look.wet)
    if look.lamps:
        picture += light.bloom(pixel, shine, size, 0.9).reshape(3, -1)
    return picture.reshape(3, *size)


def _wet(scene: Scene, picture: np.ndarray, amount: float) -> None:
    """Darken the ground and let it mirror the street, in place; more so at a glancing angle and in hollows."""
    size = scene.camera.size
    flat = scene.label.ravel()
    ground = np.zeros(flat.size, bool)
    ground[scene.view.ground] = True
    ground[scene.drawn.pixel] = False
    pixel = np.flatnonzero(ground)
    inside = ground[scene.view.ground]
    hollow = scene.ground.hollow[inside]
    sine = scene.camera.rows().take(pixel // size[1])
    glance = (1 - sine / np.sqrt(1 + sine**2)) ** 4
    paved = np.where(flat[pixel] == TERRAIN, np.float32(0.15), np.float32(1))
    share = np.clip(0.10 + 0.09 * hollow + 0.55 * glance, 0.03, 0.75) * paved * amount
    mirror = light.mirrored(picture, pixel, size)
    dark = (1 - 0.35 * paved * amount) * (1 - share)
    for channel, image in zip(picture, mirror, strict=True):
        channel[pixel] = channel[pixel] * dark + image * share
