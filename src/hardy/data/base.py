"""The interface of a dataset, and the Domain: a named distribution of images with labels and splits."""

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardy.data.containers import ends_whole
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.former import FormerName

__all__ = ["AbsentError", "Dataset", "Domain", "DomainItems", "Item", "find_root", "names_of"]

Item = Hashable
"""The key of one image and its label in a dataset, such as a pair of paths or an index; hashable and picklable."""


class AbsentError(InputError):
    """The folder does not have the layout of this dataset; it may hold another dataset."""


class Dataset(ABC):
    """A dataset on disk (or drawn): its domains, their splits, and how to read one labelled image.

    The constructor takes ``root`` (the folder to look in) before the ``*`` and its options after it. It may list files
    but reads no image. It raises `AbsentError` if the folder does not have its layout. It raises `InputError` if the
    folder is empty, or for images without masks or masks without images; the message names the first such file and the
    count.

    Attributes:
        label_space: the label space of the labels that `read` returns.
        image_level: True when labels are one class per image.
        never: classes of `label_space` that no label of this dataset has.
        drawn: True when images and labels are computed, not read. A check then reads only a few labels.
        void: the pixels that its label map ignores, in words.
    """

    label_space: LabelSpace
    image_level: bool = False
    never: tuple[str, ...] = ()
    drawn: bool = False
    void: str = "what its label map leaves out"
    labels = FormerName("label_space")

    def __init_subclass__(cls, **options: Any) -> None:
        """Read the label space of a class that sets it under its former name ``labels``."""
        super().__init_subclass__(**options)
        if "labels" in vars(cls):
            cls.label_space = vars(cls)["labels"]
            del cls.labels

    @abstractmethod
    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Domain name -> split name -> items, in a fixed order (domains, splits and items sorted or as published)."""

    @abstractmethod
    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image (H, W, 3) uint8 RGB and its label.

        The label is (H, W) uint8 ids of `label_space`, with 255 where ignored, or a () int64 class id.

        Raises:
            InputError: for a damaged image, an image and a mask of different sizes, or an id outside of the label map.
                The message names the file, and the id with its count.
        """

    def read_label(self, item: Item) -> np.ndarray:
        """The label that `read` returns, with the same errors. A dataset of files does not decode the image."""
        return self.read(item)[1]

    def ends_whole(self, item: Item) -> bool:
        """Whether the end of the image's file shows that it is complete; False if only decoding can show this."""
        path = item[0] if isinstance(item, tuple) else None
        return isinstance(path, Path) and ends_whole(path)

    def name_of(self, item: Item) -> str:
        """The name of ``item`` in messages and records, such as the path of its image."""
        return str(item[0] if isinstance(item, tuple) else item)


@dataclass(frozen=True)
class Domain:
    """A named distribution of images with labels and splits, such as ``camvid/0001TP``.

    Attributes:
        name: ``dataset/domain``.
        dataset: reads the images.
        splits: split name -> items.
    """

    name: str
    dataset: Dataset
    splits: Mapping[str, Sequence[Item]]

    def items(self, *splits: str) -> tuple[Item, ...]:
        """The items of the named splits, or of all splits if none is named, in order."""
        return tuple(item for split in (splits or self.splits) for item in self.splits[split])


DomainItems = tuple[Domain, Sequence[Item]]
"""A domain and the items of it that are used. The ``domains`` of a Batch are indices in a sequence of these."""


def names_of(dataset: Dataset, items: Sequence[Item]) -> tuple[str, ...]:
    """The names of ``items``; for files the path below the deepest folder that contains all of them."""
    found = [dataset.name_of(item) for item in items]
    if not found or not all(isinstance(_first(item), Path) for item in items):
        return tuple(found)
    above = os.path.commonpath([os.path.dirname(path) for path in found])
    return tuple(Path(os.path.relpath(path, above)).as_posix() for path in found)


def _first(item: Item) -> Hashable:
    """The first part of an item that is no tuple itself; of a file, its image's path."""
    return _first(item[0]) if isinstance(item, tuple) else item


def find_root(root: Path, *candidates: str) -> Path:
    """The first of ``root/candidate`` that is a folder, else ``root`` itself."""
    return next((root / name for name in candidates if (root / name).is_dir()), root)
