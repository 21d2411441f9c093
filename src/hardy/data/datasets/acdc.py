"""ACDC: street images of Switzerland in fog, at night, in rain and in snow, in 19 classes; each weather is a domain.

Layout: ``rgb_anon/{fog,night,rain,snow}/{train,val}/{drive}/*_rgb_anon.png`` with the masks in
``gt/{fog,...}/{train,val}/{drive}/*_gt_labelTrainIds.png`` (1920x1080, class ids of Cityscapes). The data are at
acdc.vision.ee.ethz.ch. The test split is left out because its masks are not public. The images of the same places in
clear weather (``train_ref`` and similar folders) are left out too.

Source: Sakaridis, Dai and Van Gool, "ACDC: the adverse conditions dataset with correspondences for semantic driving
scene understanding", ICCV 2021.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_frame, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["ACDC"]

_CONDITIONS = ("fog", "night", "rain", "snow")
_SPLITS = ("train", "val")
_IMAGE = "_rgb_anon.png"
_MASK = "_gt_labelTrainIds.png"


class ACDC(ImagesAndMasks):
    """ACDC below ``root``, which is its folder or one that holds ``acdc`` or ``ACDC``.

    Raises:
        InputError: if there is no condition, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "acdc", "ACDC")
        self._files = ImageAndMask(RawMap.identity(len(self.label_space)))
        self._index: dict[str, dict[str, list[Item]]] = {}
        for condition in _CONDITIONS:
            for split in _SPLITS:
                folder = self.root / "rgb_anon" / condition / split
                if folder.is_dir():
                    truth = self.root / "gt" / condition / split
                    found = pair(
                        by_frame(folder, _IMAGE),
                        by_frame(truth, _MASK),
                        folder,
                        mask=f"{truth}/{{}}{_MASK}",
                        image=f"{folder}/{{}}{_IMAGE}",
                    )
                    self._index.setdefault(condition, {})[split] = list(found)
        if not self._index:
            conditions = ",".join(_CONDITIONS)
            raise AbsentError(f"{self.root}: no ACDC here; it has rgb_anon/{{{conditions}}}/{{train,val}} and gt")

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each condition's images by published split."""
        return self._index
