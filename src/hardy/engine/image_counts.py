"""The confusion counts of a measurement, image by image, under names that say nothing of the machine."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hardy.counts import Counts
from hardy.data.base import Dataset, Item

__all__ = ["counted", "names_of"]


def names_of(dataset: Dataset, items: Sequence[Item]) -> tuple[str, ...]:
    """What ``items`` are called; of files the path below the deepest folder that holds them all."""
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
