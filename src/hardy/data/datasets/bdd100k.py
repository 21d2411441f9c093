"""BDD100K: 7,000 + 1,000 street images of American cities by day, dusk and night, in 19 classes.

Layout: ``images/10k/{train,val}/*.jpg`` with ``labels/sem_seg/masks/{train,val}/*.png`` (1280x720), index masks with
the class ids of Cityscapes (``trainIds``). The first release can be read too: ``seg/images`` with
``seg/labels/{train,val}/*_train_id.png``, or the same below ``images`` and ``labels`` (bdd-data.berkeley.edu). One
domain, ``10k``. The test split is left out: its masks are not public.

Source: Yu et al., "BDD100K: a diverse driving dataset for heterogeneous multitask learning", CVPR 2020.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_name, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["BDD100K"]

_SPLITS = ("train", "val")
_LAYOUTS = (
    ("images/10k", "labels/sem_seg/masks", ".png"),
    ("seg/images", "seg/labels", "_train_id.png"),
    ("images", "labels", "_train_id.png"),
)
"""For each release, newest first: folder of the images, folder of the masks, ending of a mask."""


class BDD100K(ImagesAndMasks):
    """BDD100K below ``root``, which is its folder or one that holds ``bdd100k``, ``BDD100K`` or ``bdd-100k``.

    Raises:
        InputError: if there is no split, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "bdd100k", "BDD100K", "bdd-100k")
        self._files = ImageAndMask(RawMap.identity(len(self.label_space)))
        self._index: dict[str, list[Item]] = {}
        for images, masks, ending in _LAYOUTS:
            for split in (name for name in _SPLITS if (self.root / images / name).is_dir()):
                folder = self.root / images / split
                truth = self.root / masks / split
                named = {"mask": f"{truth}/{{}}{ending}", "image": f"{folder}/{{}}.jpg"}
                self._index[split] = list(pair(by_name(folder, ".jpg"), by_name(truth, ending), folder, **named))
            if self._index:
                return
        expected = "images/10k/{train,val} and labels/sem_seg/masks/{train,val}"
        raise AbsentError(f"{self.root}: no BDD100K here; it has {expected}")

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """One domain ``10k`` with the published splits ``train`` and ``val``."""
        return {"10k": self._index}
