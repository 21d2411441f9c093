"""One image of `streets` from a seed: geometry and paint, light, air and weather, camera, in that order."""

from functools import lru_cache

import numpy as np

from hardy.data.streets.domains import Appearance
from hardy.data.streets.light import sun_direction
from hardy.data.streets.scene import stage
from hardy.data.streets.sensor import distort, expose
from hardy.data.streets.shade import Weather, shade
from hardy.data.streets.weather import add_rain, add_snow, fog
from hardy.seed import key

__all__ = ["photograph"]


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Let the C library reuse freed arrays, once per process.

    glibc returns every large block to the system when it is freed, until it has freed one block of some size; from
    then on it keeps blocks up to that size. Without this, page faults are over a quarter of the time of an image.
    """
    np.empty(31 * 2**20, np.uint8)


def photograph(
    look: Appearance, size: tuple[int, int], seed: int, place: tuple[int | str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and mask (H, W) uint8 of the scene that ``seed`` and ``place`` name, seen as ``look``."""
    _keep_freed_memory()
    scene = stage(np.random.default_rng(key(seed, *place, "scene")), look, size, seed)
    rng = np.random.default_rng(key(seed, *place, "light"))
    weather = Weather(
        float(rng.uniform(*look.haze)), float(rng.uniform(*look.windows)), sun_direction(rng, look.height)
    )
    picture = shade(scene, look, weather, rng, seed)
    if weather.haze:
        distance = scene.distance()
        distance[~np.isfinite(distance)] = 0  # the sky keeps its own light
        fog(picture, distance, weather.haze, np.array(look.horizon, np.float32))
    bright = float(max(look.horizon))
    if look.rain:
        add_rain(picture, rng, look.rain, bright * 1.15)
    if look.flakes:
        add_snow(picture, rng, look.flakes, bright * 1.25)
    mask = scene.label
    if look.distortion:
        picture, mask = distort(picture, mask, look.distortion)
    return expose(picture, look, rng, seed), mask
