"""IDD, the Indian Driving Dataset: unstructured traffic, in the 7 classes of its first level.

Two releases, each one domain. ``lite``: ``leftImg8bit/{train,val}/{seq}/{frame}_image.jpg`` with the masks in
``gtFine/{train,val}/{seq}/{frame}_label.png`` (1,403 + 204 images, about 320x227), which have the 7 class ids.
``full``: ``..._leftImg8bit.png`` (or ``.jpg``) with ``..._gtFine_labellevel3Ids.png``, which have the 26 ids of the
third level; the published hierarchy maps each to one class of the first level. The test split has no masks.

Source: Varma et al., "IDD: A dataset for exploring problems of autonomous navigation in unconstrained environments",
WACV 2019; the hierarchy of ids as in the AutoNUE label table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_frame, files, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import IGNORE, RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks
from hardy.errors import InputError

__all__ = ["IDD"]

_SPLITS = ("train", "val")
_LEVEL3 = ((0, 1), (2, 3), (4, 5), range(6, 13), range(13, 22), (22, 23, 24), (25,))
"""The ids of the third level that belong to each class of the first level."""

_LITE = RawMap.identity(len(SPACES["idd7"]))
_FULL = RawMap.of({raw: place for place, below in enumerate(_LEVEL3) for raw in below}, ignored=(IGNORE,))


class IDD(ImagesAndMasks):
    """IDD below ``root``, which is its folder or one that holds ``idd`` (or the names of the releases).

    Raises:
        InputError: if there is neither release, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["idd7"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "idd", "idd20k_lite", "IDD_Segmentation")
        images = self.root / "leftImg8bit"
        splits = [name for name in _SPLITS if (images / name).is_dir()]
        if not splits:
            raise AbsentError(f"{self.root}: no IDD here; it has leftImg8bit/{{train,val}} and gtFine")
        self._lite = bool(files(images, "_image.jpg"))
        self._files = ImageAndMask(_LITE if self._lite else _FULL)
        self._index = {split: self._pairs(split) for split in splits}

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """The images of ``lite`` or ``full`` by published split."""
        return {"lite" if self._lite else "full": self._index}

    def _pairs(self, split: str) -> list[Item]:
        folder, truth = self.root / "leftImg8bit" / split, self.root / "gtFine" / split
        if self._lite:
            images = by_frame(folder, "_image.jpg")
            masks = {k: v for k, v in by_frame(truth, "_label.png").items() if not k.endswith("_inst")}
        else:
            images = by_frame(folder, "_leftImg8bit.png", "_leftImg8bit.jpg")
            masks = by_frame(truth, "_gtFine_labellevel3Ids.png")
            if images and not masks:
                raise InputError(f"{truth}: no *_gtFine_labellevel3Ids.png; make them with AutoNUE's createLabels.py")
        ending = "_label.png" if self._lite else "_gtFine_labellevel3Ids.png"
        start = "_image.jpg" if self._lite else "_leftImg8bit.png or .jpg"
        return list(pair(images, masks, folder, mask=f"{truth}/{{}}{ending}", image=f"{folder}/{{}}{start}"))
