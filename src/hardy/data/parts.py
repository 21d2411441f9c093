"""An image read in parts, from top to bottom, by libvips through pyvips, which is an extra.

PNG, JPEG and TIFF are read row by row; the pixels are those of `hardy.data.decoding.read_image`. A progressive JPEG or
an interlaced PNG cannot be read in parts. libvips first decodes an image with a rotating EXIF orientation into a
temporary file.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from hardy.data.containers import check_sums, has_chunk
from hardy.data.decoding import opened, orientation
from hardy.errors import InputError

__all__ = ["MOST_PIXELS", "Parts", "TornError", "size_in"]

MOST_PIXELS = 2**32
"""The most pixels that an image read in parts may have: 65536 x 65536."""

_ROWS = 64
"""How many rows are fetched at once."""

_LOADERS = {"PNG": "pngload", "JPEG": "jpegload", "TIFF": "tiffload"}


def size_in(path: Path) -> tuple[int, int]:
    """(height, width) from the header of an image of up to `MOST_PIXELS`, before its EXIF orientation is applied.

    Raises:
        InputError: for a missing file, a file that is not an image, or an image of more pixels.
    """
    with opened(path, most=MOST_PIXELS) as image:
        return image.height, image.width


class TornError(InputError):
    """An image cannot be read in parts: its format, content or damage does not allow it."""


class Parts:
    """The image at ``path``, with only some rows in memory.

    Attributes:
        shape: (height, width) of the upright image.
        most_held: the largest number of pixels that were in memory at one time.

    Raises:
        TornError: for a file that cannot be read in parts, with the reason, or if pyvips is missing.
        InputError: for a missing file, a file that is not an image, or an image of more than `MOST_PIXELS`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._vips = _package()
        loader, turned = _loader(path)
        try:
            image = getattr(self._vips.Image, loader)(
                str(path), access="random" if turned else "sequential", fail_on="error"
            )
            self._alpha = bool(image.hasalpha())
            self._refuse(image)
            image = image.autorot() if turned else image
            self._region = self._vips.Region.new(image)
        except self._vips.Error as error:
            raise self._torn(error) from None
        self.shape = (int(image.height), int(image.width))
        self._bands = int(image.bands)
        self._top = 0
        self._kept = np.empty((0, self.shape[1], 3), dtype=np.uint8)
        self.most_held = 0

    def take(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels (h, w, 3) uint8 RGB of these rows and columns.

        Rows before ``rows.start`` are dropped: later calls must start at or below it.

        Raises:
            TornError: if the file is damaged, or has transparent pixels.
        """
        top, bottom = rows.start, min(rows.stop, self.shape[0])
        assert top >= self._top, "from top to bottom"
        end = self._top + len(self._kept)
        if bottom > end or top > self._top:
            found = np.empty((bottom - top, self.shape[1], 3), dtype=np.uint8)
            kept = self._kept[top - self._top :]
            found[: len(kept)] = kept
            self.most_held = max(self.most_held, (len(self._kept) + len(found)) * self.shape[1])
            for start in range(max(end, top), bottom, _ROWS):
                stop = min(start + _ROWS, bottom)
                found[start - top : stop - top] = self._fetched(start, stop)
            self._kept, self._top = found, top
        return self._kept[: bottom - top, columns]

    def _fetched(self, top: int, bottom: int) -> np.ndarray:
        try:
            data = self._region.fetch(0, top, self.shape[1], bottom - top)
        except self._vips.Error as error:
            raise self._torn(error) from None
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(bottom - top, self.shape[1], self._bands)
        if self._alpha and (pixels[..., -1] != 255).any():
            raise TornError(f"{self._path}: it has transparent pixels; save it without transparency")
        return pixels[..., :3] if self._bands >= 3 else pixels[..., :1]  # grey is repeated where it is assigned

    def _refuse(self, image: Any) -> None:
        pages = image.get_n_pages()
        if pages > 1:
            raise TornError(f"{self._path}: it holds {pages} images; save the right one as PNG")
        if image.format != "uchar":
            raise TornError(f"{self._path}: it has more than 8 bits per channel; save it with 8 bits per channel")
        if image.interpretation not in ("srgb", "b-w") or image.bands - self._alpha not in (1, 3):
            raise TornError(f"{self._path}: its colours are {image.interpretation}; save it as RGB")

    def _torn(self, error: Exception) -> "TornError":
        reason = " ".join(str(error).split())
        return TornError(f"{self._path}: damaged or not an image ({reason}); fetch it again")


def _loader(path: Path) -> tuple[str, bool]:
    """The name of libvips' loader for the file, and whether its EXIF orientation must be applied."""
    with opened(path, most=MOST_PIXELS) as image:
        name, info = str(image.format), image.info
        if name not in _LOADERS:
            raise TornError(f"{path}: {name} cannot be read in parts; save it as PNG, JPEG or TIFF")
        if info.get("progressive") or info.get("interlace"):
            kind = "a progressive JPEG" if name == "JPEG" else "an interlaced PNG"
            raise TornError(f"{path}: {kind} cannot be read in parts; save it without this option")
        if name == "PNG":
            if "exif" not in info and has_chunk(path, b"eXIf"):
                raise TornError(f"{path}: its EXIF orientation comes after its pixels in the file; save it again")
            check_sums(path)
        return _LOADERS[name], orientation(image) > 1


def _package() -> Any:
    """The package pyvips, imported on first use.

    Raises:
        TornError: if it is not installed; the message names the extra to install.
    """
    try:
        return import_module("pyvips")
    except (ImportError, OSError):  # OSError where libvips itself is missing
        raise TornError("reading an image in parts needs pyvips; install it with: pip install 'hardy[large]'") from None
