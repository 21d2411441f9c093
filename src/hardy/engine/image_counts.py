"""Counts and pictures of single images, kept from a measurement under names that reveal no path of the machine."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hardy.counts import Counts
from hardy.data.base import Dataset, Item
from hardy.engine.worst import Finder
from hardy.pictures import Worst

__all__ = ["counted", "names_of", "pictured"]


def names_of(dataset: Dataset, items: Sequence[Item]) -> tuple[str, ...]:
    """The names of ``items``; for files the path below the deepest folder that contains all of them."""
    found = [dataset.name_of(item) for item in items]
    first = (item[0] if isinstance(item, tuple) else item for item in items)
    if not found or not all(isinstance(path, Path) for path in first):
        return tuple(found)
    above = os.path.commonpath([os.path.dirname(path) for path in found])
    return tuple(Path(os.path.relpath(path, above)).as_posix() for path in found)


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
