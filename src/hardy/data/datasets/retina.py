"""Retinal vessels: 107 photographs of the back of the eye from three cameras, with a class for the vessels.

Layout: that of the dataset `folder`, with the sub-folders ``drive`` (40 images), ``hrf`` (45) and ``les_av`` (22) as
domains and the classes background and vessel. Masks are 255 outside of the field of view. Images whose names begin with
``test_`` are the split ``test``, as published. There is no published validation split: the first of every five other
images, in order of name, is ``val``, and the rest are ``train``.

Source: Staal et al., "Ridge-based vessel segmentation in color images of the retina", IEEE TMI 2004 (DRIVE); Budai et
al., "Robust vessel segmentation in fundus images", Int. J. Biomedical Imaging 2013 (HRF); Orlando et al., "Towards a
glaucoma risk index based on simulated hemodynamics from fundus images", MICCAI 2018 (LES-AV).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.datasets.folder import Folder
from hardy.data.label_spaces import SPACES
from hardy.data.reading import ImagesAndMasks
from hardy.errors import InputError

__all__ = ["Retina"]

_VAL_EVERY = 5


class Retina(ImagesAndMasks):
    """The images and masks below ``root``, which is the folder of ``images/`` or one that holds it as ``retina``.

    Raises:
        InputError: if the folder has another layout, for a ``classes.yaml`` with other classes, and what the dataset
            `folder` raises.
    """

    label_space = SPACES["retina2"]
    void = "255: outside the field of view"

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "retina")
        if not (self.root / "images").is_dir():
            raise AbsentError(f"{self.root}: no retina here; it has images/, masks/ and classes.yaml")
        self._folder = Folder(self.root)
        self._files = self._folder.reader
        if self._folder.label_space.classes != self.label_space.classes:
            found = ", ".join(self._folder.label_space.classes)
            raise InputError(
                f"{self.root / 'classes.yaml'}: it has the classes {found}, but retina has "
                f"{', '.join(self.label_space.classes)}; use the dataset folder for other classes"
            )

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each camera's images by split."""
        return {domain: _by_split(splits["all"]) for domain, splits in self._folder.index().items()}


def _by_split(items: Sequence[Item]) -> dict[str, list[Item]]:
    """The splits ``train``, ``val`` and ``test``; empty ones are left out."""
    rest = [item for item in items if not _is_test(item)]
    found = {
        "train": [item for place, item in enumerate(rest) if place % _VAL_EVERY],
        "val": rest[::_VAL_EVERY],
        "test": [item for item in items if _is_test(item)],
    }
    return {split: those for split, those in found.items() if those}


def _is_test(item: Item) -> bool:
    assert isinstance(item, tuple)
    return bool(item[0].name.startswith("test_"))
