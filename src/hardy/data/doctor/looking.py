"""Examines one image and its label: sizes, pixels of each class, failures, and a fingerprint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np

from hardy.data.base import Dataset, Item
from hardy.data.decoding import RawMask, raw_mask, read_image
from hardy.data.doctor.alignment import scores
from hardy.data.doctor.twins import Print, print_of
from hardy.data.reading import ImageAndMask, ImagesAndMasks
from hardy.errors import InputError
from hardy.types import IGNORE

__all__ = ["Seen", "look"]

Read = TypeVar("Read")

NEAR = 48
"""The largest difference in each channel at which a colour of a mask is near the colour of a class."""

_MOST_VALUES = 1000


@dataclass
class Seen:
    """One image and its label.

    Attributes:
        name: the name of the image, such as its path.
        size: (height, width) of the image; None if it cannot be read.
        mask_size: (height, width) of the stored mask; None for labels that are not masks.
        pixels: (256,) int64 pixels of each class id; ignored and unknown ones at 255.
        failures: (kind, message, the file at fault) of each failure.
        foreign: id or colour outside of the label map -> number of pixels.
        near: the number of pixels in `foreign` with a colour near that of a class.
        print: the fingerprint of the image.
        scores: the scores of `hardy.data.doctor.alignment`.
    """

    name: str
    size: tuple[int, int] | None = None
    mask_size: tuple[int, int] | None = None
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    foreign: dict[str, int] = field(default_factory=dict)
    near: int = 0
    print: Print | None = None
    scores: np.ndarray | None = None


def look(dataset: Dataset, item: Item) -> Seen:
    """Examine one item of ``dataset``; problems are stored in the result and never raised."""
    seen = Seen(dataset.name_of(item))
    image: np.ndarray | None = None
    label: np.ndarray | None = None
    if isinstance(dataset, ImagesAndMasks):
        assert isinstance(item, tuple)
        image = _tried(seen, read_image, item[0])
        mask = _tried(seen, raw_mask, item[1])
        if mask is not None:
            seen.mask_size = mask.pixels.shape[0], mask.pixels.shape[1]
        if image is not None and mask is not None:
            label = _label(dataset.reader, seen, mask, item, image.shape[:2])
    else:
        try:
            image, label = dataset.read(item)
        except InputError as error:
            seen.failures.append(("unreadable", str(error), seen.name))
    if image is not None:
        seen.size = image.shape[0], image.shape[1]
        exact = blake2b(image.tobytes(), digest_size=16, key=str(image.shape).encode()).digest()
        seen.print = print_of(image, exact)
    if label is not None:
        seen.pixels = np.bincount(np.ravel(label), minlength=256)
    if image is not None and label is not None and label.shape == image.shape[:2]:
        seen.scores = scores(image, label)
    return seen


def _tried(seen: Seen, reader: Callable[[Path], Read], path: Path) -> Read | None:
    """The result of ``reader``, or None after a failure, which is added to ``seen``."""
    try:
        return reader(path)
    except InputError as error:
        seen.failures.append(("unreadable", str(error), str(path)))
    return None


def _label(
    reader: ImageAndMask, seen: Seen, mask: RawMask, item: tuple[Path, Path], size: Sequence[int]
) -> np.ndarray | None:
    """The label of a mask; values outside of the label map are added to ``seen`` and ignored."""
    try:
        return reader.label(mask, item[1], item[0], size)
    except InputError as error:
        message = str(error)
    top, left = reader.margin or (0, 0)
    if mask.pixels.shape[:2] not in ((size[0], size[1]), (size[0] + top, size[1] + left)):
        seen.failures.append(("size", message, str(item[1])))
        return None
    try:
        raw = reader.shown(mask, item[1])
    except InputError:
        raw = None
    if raw is None or (raw.ndim == 3 and reader.colours is None):
        seen.failures.append(("label", message, str(item[1])))
        return None
    label = _ids(reader, seen, raw) if raw.ndim == 2 else _colours(reader, seen, raw)
    return label[label.shape[0] - size[0] :, label.shape[1] - size[1] :]


def _ids(reader: ImageAndMask, seen: Seen, raw: np.ndarray) -> np.ndarray:
    mapped = reader.ids.table[raw]
    values, counts = np.unique(raw[mapped < 0], return_counts=True)
    seen.foreign = {str(value): int(count) for value, count in zip(values, counts, strict=True)}
    return np.where(mapped < 0, IGNORE, mapped).astype(np.uint8)


def _colours(reader: ImageAndMask, seen: Seen, raw: np.ndarray) -> np.ndarray:
    assert reader.colours is not None
    known, ids = reader.colours.packed, reader.colours.ids
    packed = raw.astype(np.int32) @ np.array((65536, 256, 1), dtype=np.int32)
    place = np.minimum(np.searchsorted(known, packed), len(known) - 1)
    outside = known[place] != packed
    values, counts = np.unique(packed[outside], return_counts=True)
    shifts = np.array((16, 8, 0))
    ours, theirs = ((side[:, None] >> shifts) & 255 for side in (known, values))
    apart = np.abs(theirs[:, None] - ours[None]).max(2).min(1) if len(values) else np.zeros(0)
    seen.near = int(counts[apart <= NEAR].sum())
    most = np.argsort(-counts, kind="stable")[:_MOST_VALUES]
    seen.foreign = {"({}, {}, {})".format(*theirs[one].tolist()): int(counts[one]) for one in most}
    return np.where(outside, IGNORE, ids[place]).astype(np.uint8)
