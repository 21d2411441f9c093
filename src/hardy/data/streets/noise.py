"""Tileable noise and integer hashing: the surface detail of `streets`.

A tile depends only on its seed, so keeping it (`lru_cache`) changes no result.
"""

from functools import lru_cache

import numpy as np

from hardy.seed import key

__all__ = ["SIDE", "grain", "hashed", "sensor_noise", "tile"]

SIDE = 256
"""Side of a tile in cells."""


@lru_cache(maxsize=16)
def tile(seed: int, roughness: float) -> np.ndarray:
    """(SIDE, SIDE) float32 tileable noise, mean 0 and deviation 1, with spectrum ``1 / frequency**roughness``."""
    rng = np.random.default_rng(key(seed, "streets", "tile", str(roughness)))
    wave = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(wave[:, None], wave[None, :])
    radius[0, 0] = 1.0
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((SIDE, SIDE))) / radius**roughness).real
    field -= field.mean()
    out: np.ndarray = (field / field.std()).astype(np.float32)
    out.setflags(write=False)
    return out


def grain(texture: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """``texture`` at integer-rounded cells (first, second), wrapped around; the coordinates broadcast."""
    cell = (first.astype(np.int32) & (SIDE - 1)) * SIDE + (second.astype(np.int32) & (SIDE - 1))
    found: np.ndarray = texture.ravel().take(cell)
    return found


def hashed(*numbers: np.ndarray | int) -> np.ndarray:
    """Uniform float32 in [0, 1) that depends on integers alone."""
    primes = (73856093, 19349663, 83492791)
    mixed: np.ndarray = np.zeros((), np.uint32)
    for number, prime in zip(numbers, primes, strict=False):
        mixed = mixed ^ (np.asarray(number).astype(np.uint32) * np.uint32(prime))
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> np.uint32(12))) * np.uint32(0x297A2D39)
    return np.asarray((mixed >> np.uint32(8)).astype(np.float32) * np.float32(2**-24))


@lru_cache(maxsize=4)
def sensor_noise(seed: int, height: int, width: int) -> np.ndarray:
    """(3, height, width) float32 normal noise, mean 0 and deviation 1, to be cut at random places."""
    rng = np.random.default_rng(key(seed, "streets", "sensor", height, width))
    out = rng.standard_normal((3, height, width), dtype=np.float32)
    out.setflags(write=False)
    return out
