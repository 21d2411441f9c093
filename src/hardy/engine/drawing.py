"""Pictures of a prediction: palette masks, coloured masks, overlays with a legend, and maps of confidence."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hardy.data.label_spaces import LabelSpace

__all__ = ["coloured_image", "confidence_bytes", "confidence_image", "mask_image", "overlay_image"]

_ROWS = 256
"""Rows of an overlay that are mixed at once, since the sums take twice the memory of the image."""

_LINE = 20
_LEAST_WIDTH = 64
"""A narrower image gets no legend."""


def mask_image(ids: np.ndarray, label_space: LabelSpace) -> Image.Image:
    """Class ids (H, W) uint8 as a palette image in the classes' colours; unknown ids are black."""
    image = Image.fromarray(ids)
    image.putpalette(_palette(label_space).flatten().tolist())
    return image


def coloured_image(ids: np.ndarray, label_space: LabelSpace) -> Image.Image:
    """Class ids (H, W) uint8 as an RGB image in the classes' colours."""
    return Image.fromarray(_palette(label_space)[ids])


def overlay_image(image: np.ndarray, ids: np.ndarray, label_space: LabelSpace) -> Image.Image:
    """``image`` (H, W, 3) uint8, averaged with the colours of its classes; below it the classes that it shows.

    An image narrower than 64 pixels has no legend.
    """
    height, width = ids.shape
    key = _legend(ids, label_space, width) if width >= _LEAST_WIDTH else None
    mixed = np.empty((height + (key.height if key else 0), width, 3), dtype=np.uint8)
    palette = _palette(label_space).astype(np.uint16)
    for top in range(0, height, _ROWS):
        rows = slice(top, min(top + _ROWS, height))
        mixed[rows] = (image[rows] + palette[ids[rows]]) // 2
    if key:
        mixed[height:] = np.asarray(key)
    return Image.fromarray(mixed)


def confidence_image(confidence: np.ndarray) -> Image.Image:
    """Probabilities (H, W) in [0, 1] as a grey image: 0 for 0, 255 for 1."""
    return Image.fromarray(confidence_bytes(confidence))


def confidence_bytes(confidence: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] as uint8: 0 for 0, 255 for 1."""
    grey: np.ndarray = (confidence * 255).round().astype(np.uint8)
    return grey


def _legend(ids: np.ndarray, label_space: LabelSpace, width: int) -> Image.Image:
    """The classes in ``ids``, the largest first, with their colours and shares, in lines of ``width`` pixels."""
    counts = np.bincount(ids.ravel(), minlength=256)[: len(label_space)]
    shown = [place for place in np.argsort(-counts, kind="stable") if counts[place]]
    texts = [f"{_printable(label_space.classes[place])} {100 * counts[place] / ids.size:.0f} %" for place in shown]
    font = ImageFont.load_default(12)
    spots = _spots([int(font.getlength(text)) for text in texts], width)
    legend = Image.new("RGB", (width, max((top for _, top in spots), default=0) + _LINE), (255, 255, 255))
    draw = ImageDraw.Draw(legend)
    for place, text, (left, top) in zip(shown, texts, spots, strict=True):
        draw.rectangle((left, top + 4, left + 12, top + 16), fill=label_space.colours[place], outline=(120, 120, 120))
        draw.text((left + 17, top + 3), text, fill=(30, 30, 30), font=font)
    return legend


def _spots(widths: Sequence[int], width: int) -> list[tuple[int, int]]:
    """(left, top) of texts of these widths, in lines of ``width`` pixels."""
    spots, left, top = [], 4, 0
    for text in widths:
        if left > 4 and left + 17 + text > width:
            left, top = 4, top + _LINE
        spots.append((left, top))
        left += 17 + text + 12
    return spots


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


def _palette(label_space: LabelSpace) -> np.ndarray:
    """(256, 3) uint8."""
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(label_space)] = label_space.colours
    return palette
