"""The interface of a dataset, and the Domain: a named distribution of images with labels and splits."""

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

__all__ = ["AbsentError", "Dataset", "Domain", "DomainItems", "Item", "find_root"]

Item = Hashable
"""What a dataset needs to find one image and its label again: a pair of paths, an index; hashable, picklable."""


class AbsentError(InputError):
    """The layout of a dataset is not in the folder where it was looked for; what is there may be another dataset."""


class Dataset(ABC):
    """A dataset on disk (or drawn): its domains, their splits, and how to read one labelled image.

    The constructor takes ``root`` (the folder to look in) before the ``*`` and its options after. It may list
    files; it reads no image. It raises `AbsentError` where its layout is not there, and `InputError` where the folder
    is empty, or holds an image without mask or a mask without image, naming the first such file and the count.

    Attributes:
        label_space: the label space of what `read` returns.
        image_level: True when labels are one class per image.
        never: classes of `label_space` that no label of this dataset holds.
        drawn: True when images and labels are computed, not read: a check then reads a few labels only.
        void: which pixels its label map ignores, in words.
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
        """domain name -> split name -> items, in a fixed order (domains, splits and items sorted or as published)."""

    @abstractmethod
    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image (H, W, 3) uint8 RGB and its label: (H, W) uint8 ids of `labels` with 255 where ignored, or a
        () int64 class id. Raises `InputError` naming the file for a torn image, a size mismatch between image and
        mask, or an id outside the label map (with the id and its count)."""

    def read_label(self, item: Item) -> np.ndarray:
        """The label that `read` returns, with the same errors; a dataset of files leaves the image undecoded."""
        return self.read(item)[1]

    def ends_whole(self, item: Item) -> bool:
        """Whether the end of the image's file shows that nothing was cut off; False where only decoding can show it."""
        path = item[0] if isinstance(item, tuple) else None
        return isinstance(path, Path) and ends_whole(path)

    def name_of(self, item: Item) -> str:
        """How messages and records name ``item``: its image's path or the like."""
        return str(item[0] if isinstance(item, tuple) else item)


@dataclass(frozen=True)
class Domain:
    """A named distribution of images with labels and splits, such as ``camvid/0001TP``.

    Attributes:
        name: ``dataset/domain``.
        dataset: where the images are read.
        splits: split name -> items.
    """

    name: str
    dataset: Dataset
    splits: Mapping[str, Sequence[Item]]

    def items(self, *splits: str) -> tuple[Item, ...]:
        """The items of the named splits, or of all of them when none is named, in order."""
        return tuple(item for split in (splits or self.splits) for item in self.splits[split])


DomainItems = tuple[Domain, Sequence[Item]]
"""A domain and those of its items that are used; in a sequence of these, the ``domains`` of a Batch are places."""


def find_root(root: Path, *candidates: str) -> Path:
    """The first of ``root/candidate`` that is a folder, else ``root`` itself."""
    return next((root / name for name in candidates if (root / name).is_dir()), root)
