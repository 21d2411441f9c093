"""KITTI semantics: 200 street images of Karlsruhe by day, labelled with the ids of Cityscapes.

Layout: ``training/image_2/*_10.png`` with ``training/semantic/*_10.png`` (about 1242x375, Cityscapes labelIds). In some
copies the images are the crop ``mask[5:375, 18:1242]`` of their masks. A mask that is larger by exactly this margin is
cropped to its image. Any other difference in size is an error; masks are never resized to fit.

Source: Alhaija et al., "Augmented reality meets computer vision", IJCV 2018 (the semantics of KITTI; Geiger et al.,
CVPR 2012).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_name, pair
from hardy.data.label_spaces import CITYSCAPES_IDS, SPACES
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["KITTI"]

_TOP, _LEFT = 5, 18
"""The margin above and left of the crop, in pixels; the crop ends at the mask's lower right corner."""


class KITTI(ImagesAndMasks):
    """KITTI semantics below ``root``: its folder, or one that holds ``data_semantics`` or ``kitti/data_semantics``.

    Raises:
        InputError: if the folder has another layout, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "data_semantics", "kitti/data_semantics", "kitti")
        folder = self.root / "training" / "image_2"
        if not folder.is_dir():
            raise AbsentError(f"{self.root}: no KITTI semantics here; it has training/image_2 and training/semantic")
        truth = self.root / "training" / "semantic"
        named = {"mask": f"{truth}/{{}}.png", "image": f"{folder}/{{}}.png"}
        self._items: list[Item] = list(pair(by_name(folder, ".png"), by_name(truth, ".png"), folder, **named))
        self._files = ImageAndMask(CITYSCAPES_IDS, margin=(_TOP, _LEFT))

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """One domain ``karlsruhe`` with ``train``, the only split that has masks."""
        return {"karlsruhe": {"train": self._items}}
