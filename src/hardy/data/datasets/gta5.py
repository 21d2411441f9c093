"""GTA5: 24,966 street images of a game's city, labelled with the ids of Cityscapes.

Layout: ``images/*.png`` with ``labels/*.png`` (1914x1052), palette PNGs whose index is the Cityscapes id. Unpack the
ten parts of the download into one folder (download.visinf.tu-darmstadt.de/data/from_games). One domain, ``all``. Images
whose labels have another size are left out, with a warning that gives their number.

Splits: the folders ``images/{train,valid,test}/*/`` of RobustNet, or its lists ``gtav_split_{train,val,test}.txt``
(12,388, 6,382 and 6,181 names: the authors' split) in the same folder as ``images`` or in ``split_data`` there. They
are not part of the download: without them every fourth image is ``val`` and the others ``train``, with a warning.

Source: Richter, Vineet, Roth and Koltun, "Playing for data: ground truth from computer games", ECCV 2016; the lists and
the rule for sizes of Choi et al., "RobustNet", CVPR 2021.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.datasets._pieces import split
from hardy.data.decoding import image_size
from hardy.data.finding import files, pair
from hardy.data.label_spaces import CITYSCAPES_IDS, SPACES
from hardy.data.rawmap import IGNORE, RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks
from hardy.errors import InputError

__all__ = ["GTA5"]

_log = logging.getLogger("hardy")

_LICENCE_PLATE = 34
_CONVERTED = "_labelTrainIds"
"""The ending of masks that a converter may have written beside the published ones."""

_ids = CITYSCAPES_IDS.table.copy()
_ids[_LICENCE_PLATE] = IGNORE
_IDS = RawMap(_ids)


class GTA5(ImagesAndMasks):
    """GTA5 below ``root``, which is its folder or one that holds ``gta5``, ``GTA5``, ``gtav``, ``GTAV`` or ``gta``.

    Raises:
        InputError: if the folder has another layout, for an image without a mask or a mask without an image, or if a
            list names a missing image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "gta5", "GTA5", "gtav", "GTAV", "gta")
        images, labels = self.root / "images", self.root / "labels"
        if not (images.is_dir() and labels.is_dir()):
            raise AbsentError(f"{self.root}: no GTA5 here; it has images/*.png and labels/*.png")
        kept, left_out = _of_one_size(pair(_by_path(images), _by_path(labels), images, mask=f"{labels}/{{}}"))
        if left_out:
            _log.warning(
                "%s: %d images are left out because their labels have another size, such as %s",
                self.root,
                len(left_out),
                left_out[0].name,
            )
        stems = {path.stem for path in left_out}
        self._index = split(kept, images, "gtav_split_{}.txt", drawn=(1, 4), left_out=stems)
        self._files = ImageAndMask(_IDS)

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """One domain ``all`` with the splits ``train``, ``val`` and, if folders or lists define it, ``test``."""
        return {"all": self._index}


def _by_path(folder: Path) -> dict[str, Path]:
    found = (path for path in files(folder, ".png") if not path.stem.endswith(_CONVERTED))
    return {path.relative_to(folder).as_posix(): path for path in found}


def _of_one_size(items: Sequence[tuple[Path, Path]]) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """The items whose image and mask have the same size, and the images of the others; only headers are read."""
    kept, left_out = [], []
    for image, mask in items:
        if image_size(image) == image_size(mask):
            kept.append((image, mask))
        else:
            left_out.append(image)
    if not kept:
        raise InputError(f"{items[0][1]}: no label has the size of its image; fetch images and labels again")
    return kept, left_out
