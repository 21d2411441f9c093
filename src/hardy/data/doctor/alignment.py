"""Checks whether a mask is aligned with its image: compares its borders with the image's edges at every small offset.

The score of an offset is the mean edge strength of the image under the mask's borders, moved by this offset. The edge
strength is the square root of the magnitude of the grey gradient, standardised over the image. For an aligned mask, the
score is largest at offset 0. Images are first reduced to at most 240 pixels per side.

A mask of one image is reported if the largest score is at an offset of `LEAST_OFFSET` or more reduced pixels, and is at
least `LEAST_RATIO` times the largest score at offsets of up to one pixel. On the 701 images of CamVid there are two
alarms: one is correct (``test/Seq05VD_f02610`` has the mask of another frame), one is false (0.14 %). Of the masks of
every third image, moved by 10 pixels across, 12 down, 15 and 30, or 40 across (of 480x360), 95, 94, 100 and 99 % are
found. For a domain the scores of its images are summed; then an offset of `LEAST_COMMON` reduced pixels is enough, and
there is no alarm for CamVid's four drives.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from hardy.types import IGNORE

__all__ = ["LEAST_COMMON", "LEAST_OFFSET", "LEAST_RATIO", "best_crop", "factor", "offset", "scores"]

LEAST_OFFSET = 3
LEAST_RATIO = 1.3
LEAST_COMMON = 2

_SIDE = 240
_REACH = 24
_LEAST_BORDER = 60
_AS_GOOD = 0.97


def factor(size: Iterable[int]) -> int:
    """The factor by which an image of ``size`` (height, width) is reduced."""
    return max(1, -(-max(size) // _SIDE))


def scores(image: np.ndarray, label: np.ndarray) -> np.ndarray | None:
    """The score (49, 49) float32 of the offsets from -24 to 24 reduced pixels, down and across.

    Args:
        image: (H, W, 3) uint8.
        label: (H, W) uint8 with 255 where ignored.

    Returns:
        None for a mask with almost no borders.
    """
    by = factor(label.shape)
    grey = np.asarray(Image.fromarray(image).convert("L").reduce(by))
    small = label[by // 2 :: by, by // 2 :: by]
    rows, columns = min(len(grey), len(small)), min(grey.shape[1], small.shape[1])
    lines = _borders(small[:rows, :columns], IGNORE)
    if (total := lines.sum()) < _LEAST_BORDER:
        return None
    found = _correlated(_edges(grey[:rows, :columns]), lines, (rows + _REACH, columns + _REACH))
    around = np.roll(found, (_REACH, _REACH), (0, 1))[: 2 * _REACH + 1, : 2 * _REACH + 1]
    near: np.ndarray = (around / total).astype(np.float32)
    return near


def offset(score: np.ndarray) -> tuple[tuple[int, int], float]:
    """The offset (down, across) of the largest score, in reduced pixels, and its ratio to the score at offset 0."""
    down, across = np.unravel_index(int(score.argmax()), score.shape)
    none = score[_REACH - 1 : _REACH + 2, _REACH - 1 : _REACH + 2].max()
    return (int(down) - _REACH, int(across) - _REACH), float(score[down, across] / max(none, 0.1))


def best_crop(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    """The position (top, left) of the crop of the masks that fits the images best, over all ``pairs`` together.

    Crops are usually made at an end or in the middle, so such a position is preferred if its score is at least 97 % of
    the largest.

    Args:
        pairs: image (h, w, 3) uint8 and the stored mask, (H, W) or (H, W, 3), with H >= h and W >= w; all with the same
            sizes.
    """
    total, room = np.zeros(1), (1, 1)
    for image, mask in pairs:
        raw = mask if mask.ndim == 2 else mask.astype(np.int64) @ (65536, 256, 1)
        room = raw.shape[0] - image.shape[0] + 1, raw.shape[1] - image.shape[1] + 1
        grey = np.asarray(Image.fromarray(image).convert("L"))
        total = total + _correlated(_borders(raw, None), _edges(grey), raw.shape)[: room[0], : room[1]]
    usual = np.zeros(room, dtype=bool)
    usual[np.ix_(*([0, side // 2, side - 1] for side in room))] = True
    among = usual & (total >= _AS_GOOD * total.max())
    top, left = np.unravel_index(int(np.where(among, total, -np.inf).argmax() if among.any() else total.argmax()), room)
    return int(top), int(left)


def _correlated(fixed: np.ndarray, moved: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """``sum_p moved[p] fixed[p + offset]`` for every offset, periodic in ``size``; through Fourier transforms."""
    product = np.fft.rfft2(fixed, size) * np.conj(np.fft.rfft2(moved, size))
    found: np.ndarray = np.fft.irfft2(product, size)
    return found


def _edges(grey: np.ndarray) -> np.ndarray:
    """(h, w) float32: the square root of the gradient's magnitude, with mean 0 and standard deviation 1."""
    wide = grey.astype(np.float32)
    down, across = np.zeros_like(wide), np.zeros_like(wide)
    down[1:-1] = wide[2:] - wide[:-2]
    across[:, 1:-1] = wide[:, 2:] - wide[:, :-2]
    size = np.sqrt(np.hypot(down, across))
    edges: np.ndarray = (size - size.mean()) / (size.std() + 1e-6)
    return edges


def _borders(label: np.ndarray, ignored: int | None) -> np.ndarray:
    """(h, w) float32: 1 on both sides of a change of class, except to or from ``ignored``."""
    found = np.zeros(label.shape, dtype=bool)
    for one, other, into in (
        (label[1:], label[:-1], (found[1:], found[:-1])),
        (label[:, 1:], label[:, :-1], (found[:, 1:], found[:, :-1])),
    ):
        differ = one != other
        if ignored is not None:
            differ &= (one != ignored) & (other != ignored)
        for side in into:
            side |= differ
    return found.astype(np.float32)
