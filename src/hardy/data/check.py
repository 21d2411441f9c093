"""The check of the data before the first step, so that wrong data is found before training."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hardy.data.base import Domain, DomainItems, Item
from hardy.data.label_spaces import LabelSpace
from hardy.data.loader import label_map
from hardy.errors import InputError
from hardy.types import IGNORE

__all__ = ["Counts", "Decode", "check_labels", "count_labels", "gaps"]

_log = logging.getLogger("hardy")

DRAWN = 16
"""The number of labels of a drawn domain that are checked."""

SAMPLE = 8
"""The number of images of a domain that are decoded in a sample, in addition to those whose files look incomplete."""

_NAMED = 6

Decode = Literal["none", "sample", "all"]
"""Which images are also decoded: none, a few of each domain and those that may be incomplete, or all."""


@dataclass(frozen=True)
class Counts:
    """Pixel counts of the labels.

    Attributes:
        classes: (K,) int64 pixels (or images) of each class.
        ignored: the number of ignored pixels.
    """

    classes: np.ndarray
    ignored: int


def check_labels(
    data: Sequence[DomainItems], label_space: LabelSpace, *, decode: Decode = "none", part: str = ""
) -> np.ndarray:
    """The pixels (or images) of each class, (K,) int64, as `count_labels`; logs a warning for classes without any.

    Args:
        data: as for `count_labels`.
        label_space: as for `count_labels`.
        decode: as for `count_labels`.
        part: what the images are for, in the plural, such as ``training images``; the warning names it.

    Raises:
        InputError: as `count_labels`.
    """
    counts = count_labels(data, label_space, decode=decode)
    if missing := gaps(data, label_space, counts, part=part):
        _log.warning("%s", missing)
    return counts.classes


def count_labels(
    data: Sequence[DomainItems],
    label_space: LabelSpace,
    *,
    decode: Decode = "none",
    over: Callable[[Sequence[Item]], Iterable[Item]] = iter,
) -> Counts:
    """Read every label once and count the pixels of each class; images are not decoded if the dataset allows this.

    Of a dataset that draws its images (`Dataset.drawn`) only the first few labels are counted, and no image is decoded.

    Args:
        data: domains with the items to check.
        label_space: the label space of the counts.
        decode: which images are also decoded.
        over: iterates over the items of a domain, for example with a progress bar.

    Raises:
        InputError: for the first damaged image or label or the first id without a class (the message names the file,
            the id and its count); for a dataset without a map onto ``label_space``; if all pixels of all images are
            ignored.
    """
    total, ignored = np.zeros(len(label_space), dtype=np.int64), 0
    for domain, items in data:
        table = label_map(domain, label_space)
        shown = _to_decode(domain, items, decode)
        for place, item in enumerate(over(items[:DRAWN] if domain.dataset.drawn else items)):
            counts = _counts(domain, item, decoded=place in shown)
            for own in np.flatnonzero(counts):
                target = own if table is None else table[own]
                if target != IGNORE:
                    total[target] += counts[own]
                else:
                    ignored += int(counts[own])
    if not total.any():
        names = ", ".join(domain.name for domain, _ in data)
        raise InputError(f"{names}: every pixel of every label is ignored; check the masks and the label map")
    return Counts(total, ignored)


def gaps(data: Sequence[DomainItems], label_space: LabelSpace, counts: Counts, *, part: str = "") -> str:
    """One line that names the classes without labels in ``data`` and the ignored pixels; empty if there are none.

    ``part`` is what the images are for, as for `check_labels`. Classes that the datasets never have (`Dataset.never`)
    are not named. If a dataset is drawn, the line is empty, because only a few of its labels were read.
    """
    datasets = [domain.dataset for domain, _ in data]
    if any(dataset.drawn for dataset in datasets):
        return ""
    known = set.intersection(*({*dataset.never} for dataset in datasets))
    empty = [name for name, n in zip(label_space.classes, counts.classes, strict=True) if not n and name not in known]
    if not empty:
        return ""
    names = ", ".join(domain.name for domain, _ in data) + (f" ({part})" if part else "")
    classes = ", ".join(empty[:_NAMED]) + (f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else "")
    if datasets[0].image_level:
        return f"{names}: no image is labelled {classes}"
    share = counts.ignored / (counts.ignored + counts.classes.sum())
    void = ", ".join(dict.fromkeys(dataset.void for dataset in datasets))
    ignored = f"; {100 * share:.1f} % of the pixels are ignored ({void})" if counts.ignored else ""
    return f"{names}: no pixel is labelled {classes}; a class without labels does not count in the mIoU{ignored}"


def _to_decode(domain: Domain, items: Sequence[Item], decode: Decode) -> set[int]:
    """The indices of the items whose images are decoded."""
    if decode == "none" or domain.dataset.drawn:
        return set()
    if decode == "all":
        return set(range(len(items)))
    sample = {int(place) for place in np.linspace(0, len(items) - 1, min(SAMPLE, len(items)))}
    return sample | {place for place, item in enumerate(items) if not domain.dataset.ends_whole(item)}


def _counts(domain: Domain, item: Item, *, decoded: bool) -> np.ndarray:
    """(256,) pixels of each id of one label."""
    dataset = domain.dataset
    label = dataset.read(item)[1] if decoded else dataset.read_label(item)
    counts = np.bincount(np.ravel(label), minlength=256)
    foreign = [i for i in np.flatnonzero(counts) if i >= len(dataset.label_space) and i != IGNORE]
    if foreign:
        raise InputError(f"{dataset.name_of(item)}: id {foreign[0]} on {counts[foreign[0]]} pixels is not a class")
    return counts
