"""Maps from the values in a mask file, raw ids or RGB colours, to class ids.

Values that are declared as ignored become 255. An id or a colour outside the map is an error that names the file, the
value and the number of pixels: a wrong map must not look like ignored pixels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hardy.errors import InputError

__all__ = ["IGNORE", "Colour", "ColourMap", "RawMap"]

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

IGNORE = 255
"""The same as `hardy.types.IGNORE`, defined again because label spaces must not import torch; a test compares them."""

_FOREIGN = -1


@dataclass(frozen=True, eq=False)
class RawMap:
    """A map from the raw ids of index masks (8 or 16 bits) to class ids.

    Attributes:
        table: (65536,) int16; the class id of each raw id, 255 for an ignored one, -1 outside the map.
    """

    table: np.ndarray

    @classmethod
    def of(cls, ids: Mapping[int, int], ignored: Iterable[int] = (IGNORE,)) -> "RawMap":
        """The map with raw id -> class id ``ids``, and the raw ids ``ignored``, which have no class."""
        table = np.full(2**16, _FOREIGN, dtype=np.int16)
        table[list(ignored)] = IGNORE
        for raw, target in ids.items():
            table[raw] = target
        return cls(table)

    @classmethod
    def identity(cls, classes: int) -> "RawMap":
        """The map for masks that already contain class ids below ``classes``; 255 is ignored."""
        return cls.of({i: i for i in range(classes)})

    def apply(self, raw: np.ndarray, file: object) -> np.ndarray:
        """Class ids (H, W) uint8 of ``raw`` (H, W) uint8 or uint16.

        Raises:
            InputError: for an id outside the map; names ``file``, the smallest such id and its number of pixels.
        """
        mapped = self.table[raw]
        if mapped.size and mapped.min() < 0:
            outside = np.unique(raw[mapped < 0], return_counts=True)
            raise InputError(_foreign(file, "id", int(outside[0][0]), int(outside[1][0]), len(outside[0]) - 1))
        ids: np.ndarray = mapped.astype(np.uint8)
        return ids


@dataclass(frozen=True, eq=False)
class ColourMap:
    """A map from the RGB colours of a mask to class ids.

    Attributes:
        packed: (n,) int32, ascending: the colours as ``65536 r + 256 g + b``.
        ids: (n,) uint8: their class ids, 255 for an ignored colour.
    """

    packed: np.ndarray
    ids: np.ndarray

    @classmethod
    def of(cls, colours: Mapping[Colour, int]) -> "ColourMap":
        """The map with colour -> class id (or 255) ``colours``."""
        pairs = sorted(((r << 16) + (g << 8) + b, target) for (r, g, b), target in colours.items())
        return cls(np.array([p for p, _ in pairs], dtype=np.int32), np.array([t for _, t in pairs], dtype=np.uint8))

    def get(self, colour: Sequence[int] | np.ndarray) -> int | None:
        """The class id (or 255) of one colour; None outside the map."""
        red, green, blue = (int(part) for part in colour)
        place = np.flatnonzero(self.packed == (red << 16) + (green << 8) + blue)
        return int(self.ids[place[0]]) if len(place) else None

    def apply(self, rgb: np.ndarray, file: object) -> np.ndarray:
        """Class ids (H, W) uint8 of ``rgb`` (H, W, 3) uint8.

        Raises:
            InputError: for a colour outside the map; names ``file``, the colour and its number of pixels.
        """
        wide = rgb.astype(np.int32)
        packed = (wide[..., 0] << 16) + (wide[..., 1] << 8) + wide[..., 2]
        place = np.minimum(np.searchsorted(self.packed, packed), len(self.packed) - 1)
        known = self.packed[place] == packed
        if not known.all():
            outside = np.unique(packed[~known], return_counts=True)
            first = int(outside[0][0])
            colour = (first >> 16, first >> 8 & 255, first & 255)
            raise InputError(_foreign(file, "colour", colour, int(outside[1][0]), len(outside[0]) - 1))
        mapped: np.ndarray = self.ids[place]
        return mapped


def _foreign(file: object, what: str, value: object, count: int, others: int) -> str:
    more = f" (and {others} more)" if others else ""
    pixels = "1 pixel" if count == 1 else f"{count} pixels"
    return f"{file}: {what} {value} on {pixels} is outside the label map{more}; correct the mask or declare the {what}"
