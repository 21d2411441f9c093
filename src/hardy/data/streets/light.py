"""Light of `streets`: sun and sky on every surface, shadows of houses and objects, lamps, headlights, reflections."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from hardy.data.streets.domains import Appearance
from hardy.data.streets.layout import FIRST, STEP, Layout
from hardy.data.streets.mesh import HEADLIGHT, INTERIOR, LAMP, REARLIGHT, SIGNAL, SIGNPLATE
from hardy.data.streets.town import Colour

__all__ = ["Surface", "bloom", "emission_table", "headlight", "house_shadow", "lamp_light", "mirrored", "sun_direction"]

FINE = 8
"""Steps between two entries of the skyline, so that its shadow has no stairs."""

WARM: Colour = (1.0, 0.62, 0.26)


@dataclass
class Surface:
    """Where the pixels' surfaces lie; all arrays (P,) float32, flat over the image, finite in the sky too.

    Attributes:
        x: street x, metres.
        y: height over the ground.
        z: street z.
        depth: metres along the optical axis.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    depth: np.ndarray


def sun_direction(rng: np.random.Generator, height: tuple[float, float]) -> np.ndarray:
    """(3,) unit vector to a sun of a height in degrees drawn from the pair, from the left or the right."""
    up = math.radians(float(rng.uniform(*height)))
    turn = math.radians(float(rng.uniform(25, 155))) * (1 if rng.random() < 0.5 else -1)
    return np.array([math.cos(up) * math.sin(turn), math.sin(up), math.cos(up) * math.cos(turn)])


def house_shadow(layout: Layout, surface: Surface, sun: np.ndarray) -> np.ndarray:
    """(P,) share of sunlight that the houses on the sun's side take from each pixel.

    The ray from a point to the sun meets the plane of the building line; it is stopped if it is lower there than
    the house that stands at that place. The edge is softened over half a metre.
    """
    right, up, ahead = (float(part) for part in sun)
    side = int(right > 0)
    way = layout.line(side) * (1 if side else -1) - surface.x
    way *= 1 / right
    cell = surface.z + way * ahead
    cell -= FIRST
    cell *= FINE / STEP
    count = layout.skyline.shape[1]
    skyline = np.interp(np.arange(count * FINE) / FINE, np.arange(count), layout.skyline[side]).astype(np.float32)
    np.clip(cell, 0, len(skyline) - 1, out=cell)
    below = skyline.take(cell.astype(np.int32))
    below -= surface.y
    below -= way * up
    below *= 2
    below += 0.5
    np.clip(below, 0, 1, out=below)
    below *= way > 0.05
    return np.asarray(below)


def lamp_light(surface: Surface, places: Sequence[tuple[float, float, float]], reach: int) -> np.ndarray:
    """(P,) light of the ``reach`` nearest street lamps on each pixel."""
    light = np.zeros_like(surface.x)
    step = np.empty_like(light)
    for px, py, pz in sorted(places, key=lambda place: place[2])[:reach]:
        away = surface.x - px
        away *= away
        for part, at in ((surface.y, py), (surface.z, pz)):
            np.subtract(part, at, out=step)
            step *= step
            away += step
        away += 6
        np.divide(py * 1.5, away, out=away)
        light += away
    return light


def headlight(surface: Surface, tangent: np.ndarray) -> np.ndarray:
    """(P,) light of the own car's headlights: a cone over the columns' ``tangent`` (W,), dim above the bonnet."""
    cone = 1 / (1 + (tangent / 0.42) ** 4)
    low = np.clip((1.7 - surface.y) * 0.8, 0.0, 1.0)
    low += 0.12
    fall = surface.depth * (1 / 13)
    fall *= fall
    fall += 1
    low /= fall
    low.reshape(-1, len(tangent))[:] *= cone.astype(np.float32)
    return low


def emission_table(look: Appearance, lamp: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(3, F) light that faces of given lamp kind (F,) and reflectance (F, 3) emit."""
    gain = np.zeros(7, np.float32)
    gain[SIGNAL] = 1.0 + look.lamps
    gain[HEADLIGHT] = 4.0 * look.lamps
    gain[REARLIGHT] = 2.4 * look.lamps
    gain[LAMP] = 6.0 * look.lamps
    gain[INTERIOR] = 0.4 * look.lamps
    gain[SIGNPLATE] = 0.45 * look.lamps
    light = colour.T.copy()
    for kind, tint in ((LAMP, WARM), (INTERIOR, (0.8, 0.75, 0.55)), (REARLIGHT, (1.0, 0.05, 0.03))):
        light[:, lamp == kind] = np.array(tint, np.float32)[:, None]
    return np.asarray(light * gain[lamp])


def bloom(pixel: np.ndarray, light: np.ndarray, size: tuple[int, int], strength: float) -> np.ndarray:
    """(3, H, W) halo around the ``light`` (3, P) that the pixels of flat indices ``pixel`` (P,) give."""
    height, width = size
    small = (max(1, width // 4), max(1, height // 4))
    picture = np.zeros((height * width, 3), np.uint8)
    picture[pixel] = (np.minimum(light, 4) * (255 / 4)).astype(np.uint8).T
    reduced = Image.fromarray(picture.reshape(height, width, 3)).resize(small, Image.Resampling.BOX)
    wide = np.zeros((small[1], small[0], 3), np.float32)
    for radius, share in ((height / 128, 0.5), (height / 40, 0.8)):
        wide += np.asarray(reduced.filter(ImageFilter.GaussianBlur(radius)), np.float32) * share
    blurred = Image.fromarray(np.clip(wide, 0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(blurred, np.float32).transpose(2, 0, 1) * np.float32(strength * 4 / 255)


def mirrored(picture: np.ndarray, ground: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(3, P) what a mirror on the ground shows at its pixels ``ground`` (flat indices).

    A thing that stands on the ground at row b is seen mirrored about b: row r shows row 2 b - r. For each ground
    pixel, b is the lowest row above it in its column that is not ground. Ripples smear the image upwards.
    """
    height, width = size
    rows = np.repeat(np.arange(height, dtype=np.int16)[:, None], width, axis=1)
    rows.ravel()[ground] = 0
    base = np.maximum.accumulate(rows, axis=0).ravel()[ground].astype(np.int64)
    column = ground % width
    row = np.maximum(2 * base - ground // width, 0)
    spread = max(1, height // 40)
    taps = [np.maximum(row - step * spread // 2, 0) * width + column for step in range(3)]
    return np.stack([sum(flat.take(tap) for tap in taps) * np.float32(1 / 3) for flat in picture.reshape(3, -1)])
