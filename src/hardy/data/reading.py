"""Finding and decoding the files of a dataset: images, masks, and which belongs to which.

Pillow decodes. Images become 8-bit RGB; masks stay what they are, ids or colours, because a palette or a second
channel carries meaning there. Whatever would be changed silently (16-bit grey images, transparency, 16-bit colour
masks) is an error that names the file.
"""

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hardy.data.base import Dataset, Item
from hardy.data.rawmap import ColourMap, RawMap
from hardy.errors import InputError

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageAndMask",
    "ImagesAndMasks",
    "by_frame",
    "by_name",
    "files",
    "image_size",
    "pair",
    "read_image",
    "read_mask",
    "same_size",
    "torn",
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""The endings, in lower case, of files that count as images."""

_TORN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow raises for a file that is torn or no image."""


def files(folder: Path, ending: str | Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files under ``folder``, at any depth, whose name ends so (in any case), sorted; hidden ones do not count.

    Raises:
        InputError: when ``folder`` is missing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the data root and the layout")
    endings = (ending,) if isinstance(ending, str) else tuple(ending)
    found = (path for path in folder.rglob("*") if path.name.lower().endswith(tuple(e.lower() for e in endings)))
    return sorted(path for path in found if not path.name.startswith(".") and path.is_file())


def by_name(folder: Path, ending: str) -> dict[str, Path]:
    """The files of ``folder`` that end so, by what their names have before it."""
    return {path.name[: -len(ending)]: path for path in files(folder, ending)}


def by_frame(folder: Path, ending: str) -> dict[str, Path]:
    """As `by_name`, with the name of each file's own folder before it: ``folder/name``."""
    return {f"{path.parent.name}/{path.name[: -len(ending)]}": path for path in files(folder, ending)}


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], where: Path) -> list[tuple[Path, Path]]:
    """Each image with the mask of the same key, ordered by key.

    Raises:
        InputError: when there are no images below ``where``, for an image without mask or a mask without image;
            the first such file and the count are named.
    """
    for kind, other, alone in (
        ("image", "mask", sorted(images.keys() - masks.keys())),
        ("mask", "image", sorted(masks.keys() - images.keys())),
    ):
        if alone:
            first = (images if kind == "image" else masks)[alone[0]]
            raise InputError(f"{first}: {kind} without {other} ({len(alone)} such below {where}); add it or remove it")
    if not images:
        raise InputError(f"{where}: holds no images")
    return [(images[key], masks[key]) for key in sorted(images)]


def read_image(path: Path) -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 RGB; grey, palette and CMYK images are converted.

    Raises:
        InputError: for a torn or missing file, more than 8 bits per grey pixel, or pixels that are transparent.
    """
    image = _decoded(path)
    if image.mode.startswith("I") or image.mode == "F":
        raise InputError(f"{path}: a grey image of more than 8 bits (mode {image.mode}); save it with 8 bits")
    _opaque(image, path)
    return np.array(image.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """The mask at ``path``: ids (H, W) uint8 or uint16 of a grey or palette file, or RGB (H, W, 3) uint8.

    Raises:
        InputError: for a torn or missing file, pixels that are transparent, or a kind of file that holds neither
            ids nor 8-bit colours.
    """
    image = _decoded(path)
    if image.mode in ("L", "P"):
        return np.array(image)
    if image.mode == "1":
        return np.array(image, dtype=np.uint8)
    if image.mode.startswith("I"):
        ids = np.array(image)
        if ids.size and (ids.min() < 0 or ids.max() >= 2**16):
            raise InputError(f"{path}: mask ids of more than 16 bits; save it with 8 or 16 bits")
        return ids.astype(np.uint16)
    if image.mode not in ("RGB", "RGBA") or _bits(path) == 16:
        raise InputError(f"{path}: a mask must be an index, palette or 8-bit RGB image (mode {image.mode})")
    _opaque(image, path)
    return np.array(image.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the image at ``path``, from its header.

    Raises:
        InputError: for a file that is missing or no image.
    """
    with torn(path), Image.open(path) as image:
        return image.height, image.width


def same_size(image: Path, size: Sequence[int], mask: Path, mask_size: Sequence[int]) -> None:
    """Check that an image and its mask agree in (height, width).

    Raises:
        InputError: naming both files and both sizes.
    """
    if tuple(size) != tuple(mask_size):
        (h, w), (y, x) = size, mask_size
        raise InputError(f"{mask}: mask is {y}x{x} but its image {image} is {h}x{w} (height x width)")


def _decoded(path: Path) -> Image.Image:
    with torn(path), Image.open(path) as image:
        image.load()
        return image


@contextmanager
def torn(path: Path) -> Iterator[None]:
    """What Pillow raises inside becomes an `InputError`: the file at ``path`` is missing, torn or no image."""
    try:
        yield
    except InputError:
        raise
    except _TORN as error:
        if not path.exists():
            raise InputError(f"{path}: there is no such file") from None
        raise InputError(f"{path}: torn or no image ({' '.join(str(error).split())}); fetch it again") from None


def _opaque(image: Image.Image, path: Path) -> None:
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise InputError(f"{path}: has transparent pixels; save it without transparency")


def _bits(path: Path) -> int:
    """Bits per channel of a PNG, which Pillow hides for colour; 8 for any other file."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") else 8


class ImageAndMask:
    """How most datasets read an item ``(image path, mask path)``.

    Args:
        ids: the map of index masks.
        colours: the map of RGB masks, where the dataset has such.
        margin: a mask that is larger than its image by exactly this (top, left) is cut there; None for no such cut.
    """

    def __init__(self, ids: RawMap, colours: ColourMap | None = None, margin: tuple[int, int] | None = None) -> None:
        self._ids = ids
        self._colours = colours
        self._margin = margin

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image (H, W, 3) uint8 and the class ids (H, W) uint8.

        Raises:
            InputError: for a torn file, a size mismatch, or an id or colour outside the map; the file is named.
        """
        image_path, mask_path = _paths(item)
        image = read_image(image_path)
        return image, self._mask(image_path, image.shape[:2], mask_path)

    def read_label(self, item: Item) -> np.ndarray:
        """The class ids alone; of the image only the header is read."""
        image_path, mask_path = _paths(item)
        return self._mask(image_path, image_size(image_path), mask_path)

    def _mask(self, image: Path, size: Sequence[int], path: Path) -> np.ndarray:
        raw = read_mask(path)
        top, left = self._margin or (0, 0)
        if raw.shape[:2] == (size[0] + top, size[1] + left):
            raw = raw[top:, left:]
        same_size(image, size, path, raw.shape[:2])
        if raw.ndim == 2:
            return self._ids.apply(raw, path)
        if self._colours is None:
            raise InputError(f"{path}: an RGB mask, but its classes have no colours; declare them or save an index PNG")
        return self._colours.apply(raw, path)


class ImagesAndMasks(Dataset):
    """A dataset whose items are such pairs; its constructor sets ``_files``."""

    _files: ImageAndMask

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
