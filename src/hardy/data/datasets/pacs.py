"""PACS: 9,991 pictures of 7 classes as photos, art, cartoons and sketches; one class per image.

Layout: ``{art_painting,cartoon,photo,sketch}/{class}/*`` (``kfold`` of the original). Each kind of picture is a domain.
If the official lists ``splits/{domain}_{train,crossval}_kfold.txt`` (lines "path label", labels from 1) are beside it,
the splits are ``train`` and ``val``. Otherwise all pictures are in a single split ``all``.

Source: Li, Yang, Song and Hospedales, "Deeper, broader and artier domain generalization", ICCV 2017.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import AbsentError, Dataset, Item, find_root
from hardy.data.decoding import read_image
from hardy.data.finding import files
from hardy.data.label_spaces import SPACES
from hardy.errors import InputError, nearest

__all__ = ["PACS"]

_DOMAINS = ("art_painting", "cartoon", "photo", "sketch")
_LISTS = {"train": "train", "val": "crossval"}


class PACS(Dataset):
    """PACS below ``root``, which is its folder or one that holds ``kfold`` or ``pacs/kfold``.

    Raises:
        InputError: if there is no domain, or for a folder that is not a class, or if an official list names a missing
            picture.
    """

    label_space = SPACES["pacs7"]
    image_level = True

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "kfold", "pacs/kfold", "PACS/kfold")
        domains = [name for name in _DOMAINS if (self.root / name).is_dir()]
        if not domains:
            raise AbsentError(f"{self.root}: no PACS here; it has folders {', '.join(_DOMAINS)}")
        lists = find_root(self.root, "splits", "../splits")
        self._index = {name: self._listed(lists, name) or {"all": self._all(name)} for name in domains}

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """The pictures of each kind."""
        return self._index

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The picture and its class id, () int64."""
        assert isinstance(item, tuple)
        return read_image(item[0]), self.read_label(item)

    def read_label(self, item: Item) -> np.ndarray:
        """Only the class id."""
        assert isinstance(item, tuple)
        return np.array(item[1], dtype=np.int64)

    def _all(self, domain: str) -> list[Item]:
        items: list[Item] = [(path, self._class(path)) for path in files(self.root / domain)]
        if not items:
            raise InputError(f"{self.root / domain}: holds no images")
        return items

    def _class(self, path: Path) -> int:
        name = path.parent.name
        if name not in self.label_space.classes:
            raise InputError(f"{path}: folder {name!r} is not a class of PACS{nearest(name, self.label_space.classes)}")
        return self.label_space.index(name)

    def _listed(self, lists: Path, domain: str) -> dict[str, list[Item]]:
        index: dict[str, list[Item]] = {}
        for split, word in _LISTS.items():
            file = lists / f"{domain}_{word}_kfold.txt"
            if not file.is_file():
                return {}
            index[split] = [self._line(file, line) for line in file.read_text().splitlines() if line.strip()]
        return index

    def _line(self, file: Path, line: str) -> Item:
        name, _, label = line.strip().rpartition(" ")
        path = self.root / name
        if not name or not path.is_file():
            raise InputError(f"{file}: line {line!r} names no picture below {self.root}")
        if label != str(self._class(path) + 1):
            raise InputError(f"{file}: line {line!r} has label {label}; its folder says {self._class(path) + 1}")
        return path, self._class(path)
