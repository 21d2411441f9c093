"""Air and weather of `streets`: sky, fog over the true distance, rain streaks, snow flakes.

Source: fog after H. Koschmieder, "Theorie der horizontalen Sichtweite" (1924): the light of a scene at distance d
arrives as J exp(-beta d) + A (1 - exp(-beta d)).
"""

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from hardy.data.streets.domains import Appearance
from hardy.data.streets.noise import grain, tile

__all__ = ["add_rain", "add_snow", "fog", "paint_sky"]


def fog(picture: np.ndarray, distance: np.ndarray, beta: float, air: np.ndarray) -> None:
    """Put air of extinction ``beta`` (1/metre) before ``picture`` (3, ...), in place.

    Args:
        picture: linear light.
        distance: (...) metres from the camera to each pixel's surface.
        beta: extinction, 1/metre.
        air: (3,) airlight.
    """
    passed = np.exp(distance * np.float32(-beta))
    for channel in range(3):
        picture[channel] -= air[channel]
        picture[channel] *= passed
        picture[channel] += air[channel]


def paint_sky(look: Appearance, rng: Generator, column: np.ndarray, row: np.ndarray, seed: int) -> np.ndarray:
    """(3, P) linear light of the sky in directions (column, row), both (P,) tangents; row is negative upwards."""
    up = np.clip(-row, 0, 1)
    climb = np.clip(up * 2.2, 0, 1) ** 0.6
    strength = float(rng.uniform(*look.cloud))
    bright = np.array([0.92, 0.93, 0.95]) * (0.35 + 0.65 * np.array(look.horizon).max())
    cover: np.ndarray | float = 0.0
    if strength > 0:
        shift = rng.uniform(0, 256, 2)
        high = 1 / (up + 0.12)
        cloud = grain(tile(seed, 1.7), column * high * 34 + shift[0], high * 30 + shift[1])
        cover = np.clip(cloud * 0.5 + 0.35, 0, 1) * np.float32(strength)
    out = np.empty((3, len(column)), np.float32)
    for channel in range(3):
        base = look.horizon[channel] + (look.zenith[channel] - look.horizon[channel]) * climb
        out[channel] = base + (bright[channel] * (0.4 + 0.6 * look.horizon[channel]) - base) * cover
    return out


def add_rain(picture: np.ndarray, rng: Generator, count: int, light: float) -> None:
    """Draw ``count`` streaks over ``picture`` (3, H, W) linear light, in place."""
    height, width = picture.shape[1:]
    lean = float(rng.uniform(-0.25, 0.25))
    layer = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(layer)
    start = rng.uniform((-0.1, -0.2), (1.1, 1.0), (count, 2)) * (width, height)
    length = height * rng.uniform(0.03, 0.14, count)
    tone = rng.integers(40, 150, count)
    ends = np.stack([start[:, 0] + lean * length, start[:, 1] + length], axis=-1)
    for (x0, y0), (x1, y1), value in zip(start.tolist(), ends.tolist(), tone.tolist(), strict=True):
        pen.line((x0, y0, x1, y1), fill=value, width=max(1, height // 300))
    drops = np.asarray(layer, np.float32) * np.float32(0.55 / 255)
    for channel in picture:
        channel += (light - channel) * drops


def add_snow(picture: np.ndarray, rng: Generator, count: int, light: float) -> None:
    """Draw ``count`` flakes over ``picture`` (3, H, W) linear light, in place; few are near and large."""
    height, width = picture.shape[1:]
    layer = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(layer)
    place = rng.uniform(0, 1, (count, 2)) * (width, height)
    radius = height / 256 * np.clip(0.45 / rng.uniform(0.12, 1.0, count), 0.4, 3.2)
    stretch = rng.uniform(1.0, 1.8, count)
    tone = np.clip(rng.uniform(110, 250, count) / np.maximum(radius * 256 / height, 1) ** 0.5, 0, 255).astype(int)
    boxes = np.stack(
        [place[:, 0] - radius, place[:, 1] - radius * stretch, place[:, 0] + radius, place[:, 1] + radius * stretch], 1
    )
    for box, value in zip(boxes.tolist(), tone.tolist(), strict=True):
        pen.ellipse(box, fill=value)
    flakes = np.asarray(layer, np.float32) * np.float32(0.9 / 255)
    for channel in picture:
        channel += (light - channel) * flakes
