"""The camera's share of `streets`: lens blur, vignette, noise, tone curve, lens distortion, JPEG."""

import io
from functools import lru_cache

import numpy as np
from numpy.random import Generator
from PIL import Image

from hardy.data.streets.domains import Appearance
from hardy.data.streets.noise import sensor_noise

__all__ = ["distort", "expose", "lens"]

LEVELS = 8192
"""Steps of the tone curve's table; it ends at 4 times white."""


@lru_cache(maxsize=16)
def lens(size: tuple[int, int], strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of a barrel-distorted image comes from: (H, W) float32 columns and rows of the straight one.

    A point at radius r of the distorted image (1 at the corner) shows radius ``r (1 + strength r^2) / (1 + strength)``:
    the corners stay in place and everything else moves outwards, so that nothing unseen is needed.
    """
    height, width = size
    column = (np.arange(width) + 0.5 - width / 2)[None, :]
    row = (np.arange(height) + 0.5 - height / 2)[:, None]
    square = (column**2 + row**2) / ((width / 2) ** 2 + (height / 2) ** 2)
    factor = (1 + strength * square) / (1 + strength)
    columns = np.clip(column * factor + width / 2 - 0.5, 0, width - 1).astype(np.float32)
    rows = np.clip(row * factor + height / 2 - 0.5, 0, height - 1).astype(np.float32)
    return columns, rows


@lru_cache(maxsize=16)
def _samples(size: tuple[int, int], strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Flat index of the nearest pixel and of the upper left one, and the weights of its right and lower neighbours."""
    height, width = size
    columns, rows = lens(size, strength)
    nearest = np.rint(rows).astype(np.int64) * width + np.rint(columns).astype(np.int64)
    left = np.minimum(columns.astype(np.int64), width - 2)
    top = np.minimum(rows.astype(np.int64), height - 2)
    return nearest, top * width + left, (columns - left).astype(np.float32), (rows - top).astype(np.float32)


def distort(picture: np.ndarray, mask: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """``picture`` (3, H, W) bilinearly and ``mask`` (H, W) by nearest neighbour through the same distorting lens."""
    width = mask.shape[1]
    nearest, corner, right, down = _samples((mask.shape[0], width), strength)
    out = np.empty_like(picture)
    for channel, flat in zip(out, picture.reshape(3, -1), strict=True):
        upper, lower = flat.take(corner), flat[width:].take(corner)
        upper += (flat[1:].take(corner) - upper) * right
        lower += (flat[width + 1 :].take(corner) - lower) * right
        lower -= upper
        lower *= down
        np.add(upper, lower, out=channel)
    return out, mask.ravel().take(nearest)


def _spread(picture: np.ndarray, share: float) -> None:
    """Spill ``share`` of each pixel's light onto either neighbour, along both axes, in place."""
    height, width = picture.shape[1:]
    keep = np.float32(1 - 2 * share)
    if height > 2:
        middle = picture[:, 1:-1] * keep + (picture[:, :-2] + picture[:, 2:]) * np.float32(share)
        picture[:, 1:-1] = middle
    if width > 2:
        middle = picture[:, :, 1:-1] * keep + (picture[:, :, :-2] + picture[:, :, 2:]) * np.float32(share)
        picture[:, :, 1:-1] = middle


@lru_cache(maxsize=16)
def _vignette(size: tuple[int, int], strength: float) -> np.ndarray:
    height, width = size
    across = ((np.arange(width) + 0.5) / width * 2 - 1)[None, :]
    down = ((np.arange(height) + 0.5) / height * 2 - 1)[:, None]
    return (1 - strength * (across**2 + down**2) / 2).astype(np.float32)


@lru_cache(maxsize=8)
def _curve(exponent: float) -> np.ndarray:
    """(LEVELS,) uint8 tone curve: a power law with a soft shoulder above 0.8."""
    light = np.linspace(0, 4, LEVELS)
    value = light ** (1 / exponent)
    over = np.maximum(value - 0.8, 0)
    value = np.where(value > 0.8, 0.8 + 0.2 * np.tanh(over / 0.2 * 0.8), value)
    return np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)


def _grain(size: tuple[int, int], seed: int, rng: Generator) -> np.ndarray:
    """(3, H, W) noise, cut at a random place from a larger sheet and turned over at random."""
    height, width = size
    margin = 64
    top, left, order = int(rng.integers(margin)), int(rng.integers(margin)), rng.permutation(3)
    sheet = sensor_noise(seed, height + margin, width + margin)[order]
    cut = sheet[:, top : top + height, left : left + width]
    return cut[:, :, ::-1] if rng.random() < 0.5 else cut


def expose(picture: np.ndarray, look: Appearance, rng: Generator, seed: int) -> np.ndarray:
    """The (H, W, 3) uint8 image that the camera of ``look`` makes of linear light (3, H, W), which it overwrites."""
    size = picture.shape[1], picture.shape[2]
    gain = float(rng.uniform(*look.exposure))
    if look.blur:
        _spread(picture, look.blur)
    if look.vignette:
        picture *= _vignette(size, look.vignette)
    for channel in range(3):
        picture[channel] *= np.float32(gain * look.response[channel])
    shot, read = look.noise
    if shot or read:
        deviation = picture * np.float32(shot)
        deviation += np.float32(read * read)
        np.sqrt(deviation, out=deviation)
        deviation *= _grain(size, seed, rng)
        picture += deviation
    picture *= np.float32((LEVELS - 1) / 4)
    np.clip(picture, 0, LEVELS - 1, out=picture)
    image = np.empty((*size, 3), np.uint8)
    for channel in range(3):
        image[..., channel] = _curve(look.response[3]).take(picture[channel].astype(np.uint16))
    return _compressed(image, look.quality) if look.quality else image


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    store = io.BytesIO()
    Image.fromarray(image).save(store, "JPEG", quality=quality)
    store.seek(0)
    return np.array(Image.open(store))
