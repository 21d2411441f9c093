"""The pass over all labels before the first step: what cannot be trained on is found now, not in the tenth epoch."""

import numpy as np

from hardy.data.base import Domain, Item
from hardy.data.labels import LabelSpace
from hardy.data.loader import DomainItems, label_map
from hardy.errors import InputError
from hardy.types import IGNORE

__all__ = ["check_labels"]


def check_labels(data: DomainItems, labels: LabelSpace) -> np.ndarray:
    """Read every label once, images left undecoded where the dataset can, and count the pixels of each class.

    Of a dataset that draws its images (`Dataset.drawn`) the first few labels stand for all.

    Args:
        data: domains with the items to check.
        labels: the space the counts are in.

    Returns:
        (K,) int64 pixels (or images) of each class.

    Raises:
        InputError: for the first torn or foreign label, naming file, id and count; for a label space without a map
            onto ``labels``; when all pixels of all images are ignored.
    """
    total = np.zeros(len(labels), dtype=np.int64)
    for domain, items in data:
        table = label_map(domain, labels)
        for item in items[:DRAWN] if domain.dataset.drawn else items:
            counts = _counts(domain, item)
            for own in np.flatnonzero(counts):
                target = own if table is None else table[own]
                if target != IGNORE:
                    total[target] += counts[own]
    if not total.any():
        names = ", ".join(domain.name for domain, _ in data)
        raise InputError(f"{names}: every pixel of every label is ignored; check the masks and the label map")
    return total


DRAWN = 16
"""How many labels of a drawn domain are looked at."""


def _counts(domain: Domain, item: Item) -> np.ndarray:
    """(256,) pixels of each id of one label."""
    dataset = domain.dataset
    counts = np.bincount(np.ravel(dataset.read_label(item)), minlength=256)
    foreign = [i for i in np.flatnonzero(counts) if i >= len(dataset.labels) and i != IGNORE]
    if foreign:
        raise InputError(f"{dataset.name_of(item)}: id {foreign[0]} on {counts[foreign[0]]} pixels is no class")
    return counts
