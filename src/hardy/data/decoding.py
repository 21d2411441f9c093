"""Decoding one file: an image to 8-bit RGB, a mask to ids or colours.

Pillow decodes; every image file that Hardy reads is opened here. Images become 8-bit RGB. Masks keep their ids or
colours, because a palette or a second channel has a meaning there. Both are rotated according to their EXIF
orientation. Content that would be lost silently (more than 8 bits per channel, transparency, further frames of an
animation) and masks with lossy compression are errors that name the file.

A file can have up to `MOST_PIXELS` pixels, which need about 10 bytes each while they are decoded. Only the formats in
`FORMATS` are tried, because Pillow calls external programs for some others.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from hardy.data.containers import check_sums, has_chunk, is_lossless_webp
from hardy.data.kinds import kind_of
from hardy.errors import InputError

__all__ = [
    "FORMATS",
    "MOST_PIXELS",
    "RawMask",
    "image_size",
    "opened",
    "orientation",
    "raw_mask",
    "read_image",
    "read_mask",
]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""The formats that are decoded, with Pillow's names."""

MOST_PIXELS = 2**28
"""The largest number of pixels of a file: 16384 x 16384, or 268 megapixels."""

_RGB_LIKE = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Modes of Pillow that can be converted to RGB without visible loss."""

_LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes an image upright, by its EXIF orientation."""

_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class RawMask:
    """A mask as its file stores it.

    Attributes:
        pixels: ids (H, W) uint8 or uint16, or colours (H, W, 3) uint8.
        palette: (n, 3) uint8 colours of the ids of a palette file, else None.
    """

    pixels: np.ndarray
    palette: np.ndarray | None = None


def read_image(path: Path) -> np.ndarray:
    """The image at ``path`` as (H, W, 3) uint8 RGB; grey, palette and CMYK images are converted.

    Raises:
        InputError: for a damaged or missing file, another kind of file, more than 8 bits per channel, transparent
            pixels, an animation, or more than `MOST_PIXELS` pixels.
    """
    with opened(path) as image:
        _one_frame(image, path)
        deep = _is_deep(image)
        upright = _upright(image, path)
        if upright.mode.startswith("I") or upright.mode == "F":
            raise InputError(f"{path}: a grey image of more than 8 bits (mode {upright.mode}); save it with 8 bits")
        if deep:
            raise InputError(f"{path}: an image of 16 bits per channel; save it with 8 bits per channel")
        if upright.mode not in _RGB_LIKE:
            raise InputError(f"{path}: colours of mode {upright.mode}; save it as RGB")
        if upright.mode == "P" and upright.palette is None:
            raise InputError(f"{path}: a palette image without its palette; save it as RGB")
        _opaque(upright, path)
        return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """The mask at ``path``: ids (H, W) uint8 or uint16 of a grey or palette file, or RGB (H, W, 3) uint8.

    Raises:
        InputError: as `raw_mask`.
    """
    return raw_mask(path).pixels


def raw_mask(path: Path) -> RawMask:
    """The mask at ``path`` with its palette.

    Raises:
        InputError: for a damaged or missing file, another kind of file, lossy compression, transparent pixels, an
            animation, an image with neither ids nor 8-bit colours, or more than `MOST_PIXELS` pixels.
    """
    with opened(path) as image:
        _one_frame(image, path)
        if lossy := _lossy(image, path):
            raise InputError(
                f"{path}: a mask saved as {lossy}, whose lossy compression changes ids and colours; "
                "make it again as PNG from the original"
            )
        deep = _is_deep(image)
        upright = _upright(image, path)
        if upright.mode == "L":
            return RawMask(np.array(upright))
        if upright.mode == "P":
            colours = upright.getpalette("RGB") if upright.palette is not None else None
            palette = np.array(colours, dtype=np.uint8).reshape(-1, 3) if colours else None
            return RawMask(np.array(upright), palette)
        if upright.mode == "1":
            return RawMask(np.array(upright, dtype=np.uint8))
        if upright.mode.startswith("I"):
            ids = np.array(upright)
            if ids.size and (ids.min() < 0 or ids.max() >= 2**16):
                raise InputError(f"{path}: mask ids of more than 16 bits; save it with 8 or 16 bits")
            return RawMask(ids.astype(np.uint16))
        if upright.mode not in ("RGB", "RGBA") or deep:
            raise InputError(f"{path}: a mask must be an index, palette or 8-bit RGB image (mode {upright.mode})")
        _opaque(upright, path)
        return RawMask(np.array(upright if upright.mode == "RGB" else upright.convert("RGB")))


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image at ``path``, from its header.

    Raises:
        InputError: for a file that is missing or not an image.
    """
    with opened(path) as image:
        if image.format == "PNG" and "exif" not in image.info and has_chunk(path, b"eXIf"):
            image.load()  # the orientation is stored after the pixels
        turned = image.format != "TIFF" and orientation(image) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


@contextmanager
def opened(path: Path, most: int | None = None) -> Iterator[ImageFile]:
    """The image at ``path`` with its header read, of up to ``most`` pixels (by default `MOST_PIXELS`).

    An error inside the block becomes an `InputError` that describes the file."""
    bound = MOST_PIXELS if most is None else most
    try:
        if path.exists() and not path.is_file():
            raise InputError(
                f"{path}: it is {'a folder' if path.is_dir() else 'not a regular file'}; give an image file"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these are about metadata; problems with pixels are errors
            with _header(path) as image:
                if image.width * image.height > bound:
                    raise InputError(
                        f"{path}: {image.height}x{image.width} pixels are more than the {bound // 10**6} megapixels "
                        f"that are decoded{' at once' if most is None else ''}; cut it into tiles"
                    )
                yield image
    except InputError:
        raise
    except Exception as error:  # what a decoder raises for a damaged file is not documented
        raise InputError(_said(path, error)) from None


def _header(path: Path) -> ImageFile:
    """Pillow's image, without Pillow's own limit, which is below `MOST_PIXELS`."""
    with _lock:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path, formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _said(path: Path, error: Exception) -> str:
    """The message for an error of a decoder."""
    if isinstance(error, FileNotFoundError) or not path.exists():
        return f"{path}: there is no such file"
    if isinstance(error, MemoryError):
        return f"{path}: it does not fit into memory; cut it into tiles"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{path}: it cannot be read: {error.strerror}"
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        if found := kind_of(path):
            return f"{path}: it is {found[0]}; {found[1]}"
        reason = "unknown format" if path.stat().st_size else "the file is empty"
    return f"{path}: damaged or not an image ({reason}); fetch it again"


def _upright(image: Image.Image, path: Path) -> Image.Image:
    """``image``, decoded and rotated according to its orientation, which Pillow does itself for a TIFF."""
    image.load()
    if image.format == "PNG":
        check_sums(path)
    turn = None if image.format == "TIFF" else _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if there is none."""
    try:
        # Not the getexif of PngImageFile, which decodes all pixels to look for metadata after them.
        found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # damaged metadata do not mean that the pixels are damaged
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _is_deep(image: ImageFile) -> bool:
    """Whether the file stores 16 bits per channel, which Pillow reduces to 8 for colours; call it before `load`."""
    return any(";16" in str(tile.args) for tile in image.tile)


def _one_frame(image: Image.Image, path: Path) -> None:
    """Raise `InputError` for animations and files of several pages; a preview in a camera's JPEG is allowed."""
    frames = getattr(image, "n_frames", 1)
    if image.format in ("GIF", "PNG", "TIFF", "WEBP") and frames > 1:
        raise InputError(f"{path}: it holds {frames} images; save the right one as PNG")


def _lossy(image: Image.Image, path: Path) -> str:
    """The name of a file's lossy compression; empty if it is lossless."""
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF":
        compression = str(image.info.get("compression", ""))
        return f"TIFF with {compression} compression" if compression in _LOSSY_TIFF else ""
    return "lossy WebP" if image.format == "WEBP" and not is_lossless_webp(path) else ""


def _opaque(image: Image.Image, path: Path) -> None:
    if image.has_transparency_data:
        alpha = (image if image.mode == "RGBA" else image.convert("RGBA")).getchannel("A")
        if alpha.getextrema() != (255, 255):
            raise InputError(f"{path}: it has transparent pixels; save it without transparency")
