"""Counts and pictures of single images, kept from a measurement under names that reveal no path of the machine."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from hardy.counts import Counts
from hardy.data.base import Dataset, Item, names_of
from hardy.engine.worst import Finder
from hardy.pictures import Worst

__all__ = ["counted", "pictured"]


def counted(
    dataset: Dataset, items: Sequence[Item], each: Sequence[Tensor], classes: Sequence[str], group: str
) -> Counts:
    """The counts of ``items``, of which `hardy.engine.evaluate.count` gave ``each`` (K + 1, K + 1)."""
    size = len(classes)
    tables = np.stack([one.numpy() for one in each]) if each else np.zeros((0, size + 1, size + 1), np.int64)
    return Counts(
        names_of(dataset, items),
        np.ascontiguousarray(tables[:, :size, :size]),
        tuple(classes),
        group,
        np.ascontiguousarray(tables[:, :size, size]),
    )


def pictured(found: Mapping[str, tuple[Finder, Sequence[str]]]) -> Worst:
    """The worst images of all domains; ``found`` maps a domain to its finder and the names of its images."""
    spaces = [finder.label_space for finder, _ in found.values()]
    colours = dict(zip(spaces[0].classes, spaces[0].colours, strict=True)) if spaces else {}
    pictures = {domain: kept for domain, (finder, names) in found.items() if (kept := finder.pictures(names))}
    return Worst(pictures, colours)
