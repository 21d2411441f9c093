"""How most datasets read an item: decode an image and its mask, compare their sizes, and map the mask to class ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from hardy.data.base import Dataset, Item
from hardy.data.decoding import RawMask, image_size, raw_mask, read_image
from hardy.data.rawmap import IGNORE, ColourMap, RawMap
from hardy.errors import InputError

__all__ = ["ImageAndMask", "ImagesAndMasks", "Palette", "same_size"]

Palette = Literal["agree", "ids", "colours"]
"""What gives the class of a pixel in a palette mask: its id if its colour agrees; its id; or its colour."""


def same_size(image: Path, size: Sequence[int], mask: Path, mask_size: Sequence[int]) -> None:
    """Check that an image and its mask have the same (height, width).

    Raises:
        InputError: if they differ; names both files and both sizes.
    """
    if tuple(size) != tuple(mask_size):
        (h, w), (y, x) = size, mask_size
        turned = (
            "one of them is rotated: check its EXIF orientation"
            if (y, x) == (w, h)
            else "one of them belongs to another image"
        )
        raise InputError(f"{mask}: mask is {y}x{x} but its image {image} is {h}x{w} (height x width); {turned}")


class ImageAndMask:
    """How most datasets read an item ``(image path, mask path)``.

    Args:
        ids: the map for index masks.
        colours: the map for RGB masks, if the dataset has RGB masks.
        margin: (top, left); a mask that is larger than its image by exactly this margin is cut there. None never cuts.
        palette: what gives the class in a palette mask, if the classes have colours; see `Palette`.
        classes: the class names, for messages.

    Attributes:
        ids: as given.
        colours: as given.
        margin: as given.
    """

    def __init__(
        self,
        ids: RawMap,
        colours: ColourMap | None = None,
        *,
        margin: tuple[int, int] | None = None,
        palette: Palette = "agree",
        classes: Sequence[str] = (),
    ) -> None:
        self.ids = ids
        self.colours = colours
        self.margin = margin
        self._palette = palette
        self._classes = classes

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image (H, W, 3) uint8 and the class ids (H, W) uint8.

        Raises:
            InputError: for a damaged file, a size mismatch, an id or colour outside the map, or a palette that
                contradicts the ids; names the file.
        """
        image_path, mask_path = _paths(item)
        image = read_image(image_path)
        return image, self.label(raw_mask(mask_path), mask_path, image_path, image.shape[:2])

    def read_label(self, item: Item) -> np.ndarray:
        """Only the class ids; of the image it reads only the header. It raises the errors of `read`."""
        image_path, mask_path = _paths(item)
        return self.label(raw_mask(mask_path), mask_path, image_path, image_size(image_path))

    def label(self, mask: RawMask, path: Path, image: Path, size: Sequence[int]) -> np.ndarray:
        """The class ids (H, W) uint8 of a decoded mask.

        Args:
            mask: the content of ``path``.
            path: the mask's file, for messages.
            image: the image's file, for messages.
            size: (height, width) of the image.

        Raises:
            InputError: as `read`, except for damaged files.
        """
        raw = self.shown(mask, path)
        top, left = self.margin or (0, 0)
        if raw.shape[:2] == (size[0] + top, size[1] + left):
            raw = raw[top:, left:]
        same_size(image, size, path, raw.shape[:2])
        if raw.ndim == 2:
            return self.ids.apply(raw, path)
        if self.colours is None:
            raise InputError(
                f"{path}: an RGB mask, but its classes have no colours; declare colours, or save an index PNG"
            )
        return self.colours.apply(raw, path)

    def shown(self, mask: RawMask, path: Path) -> np.ndarray:
        """The ids (H, W) of a mask, or its colours (H, W, 3) if these give the class.

        Raises:
            InputError: for a palette that contradicts the ids.
        """
        if mask.palette is None or self.colours is None or self._palette == "ids":
            return mask.pixels
        if self._palette == "colours":
            colours: np.ndarray = _full(mask.palette)[mask.pixels]
            return colours
        used = np.flatnonzero(np.bincount(mask.pixels.ravel(), minlength=256))
        for place in used[used < len(mask.palette)]:
            colour = mask.palette[place]
            by_id, by_colour = int(self.ids.table[place]), self.colours.get(colour)
            if by_colour is not None and by_colour != by_id:
                red, green, blue = colour.tolist()
                raise InputError(
                    f"{path}: id {place} is {self._named(by_id)}, but its palette colour ({red}, {green}, {blue}) is "
                    f"that of {self._named(by_colour)}; choose one: data.datasets.folder.palette=colours or =ids"
                )
        return mask.pixels

    def _named(self, target: int) -> str:
        """The name of a class id, for messages."""
        if 0 <= target < len(self._classes):
            return f"class {self._classes[target]!r}"
        return "ignored" if target == IGNORE else "no class"


def _full(palette: np.ndarray) -> np.ndarray:
    """(256, 3): ``palette``, filled up with black."""
    return np.concatenate([palette, np.zeros((256 - len(palette), 3), dtype=np.uint8)])


class ImagesAndMasks(Dataset):
    """A dataset whose items are pairs (image path, mask path); its constructor sets ``_files``."""

    _files: ImageAndMask

    @property
    def reader(self) -> ImageAndMask:
        """What reads its pairs."""
        return self._files

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        return self._files.read(item)

    def read_label(self, item: Item) -> np.ndarray:
        """See `Dataset.read_label`."""
        return self._files.read_label(item)


def _paths(item: Item) -> tuple[Path, Path]:
    assert isinstance(item, tuple)
    image, mask = item
    return image, mask
