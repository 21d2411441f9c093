"""SYNTHIA-RAND-CITYSCAPES: 9,400 synthetic street images in the 16 classes that Cityscapes shares with them.

Layout: ``RGB/*.png`` with ``GT/LABELS/*.png`` (1280x760), 16-bit RGB PNGs with the class in the first channel and the
instance in the second (synthia-dataset.net). Pillow keeps only the high byte of such samples, which loses the class.
With the other byte order it keeps the low byte; both bytes together give the sample.

One domain, ``rand-cityscapes``. Its labels have the ids of cityscapes19; terrain, truck and train never occur. Scores
over the other 16 classes are called mIoU16, and without wall, fence and pole mIoU13.

Splits: the folders ``RGB/{train,val}/`` of RobustNet, or its random lists ``synthia_split_{train,val}.txt`` (6,580 and
2,820 names) in the same folder as ``RGB`` or in ``split_data`` there. They are not part of the download: without them
the first 3 of every 10 images are ``val`` and the others ``train``, with a warning.

Source: Ros, Sellart, Materzynska, Vazquez and Lopez, "The SYNTHIA dataset", CVPR 2016; the lists of Choi et al.,
"RobustNet", CVPR 2021.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import AbsentError, Dataset, Item, find_root
from hardy.data.datasets._pieces import split
from hardy.data.decoding import image_size, opened, read_image
from hardy.data.finding import files, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import same_size
from hardy.errors import InputError

__all__ = ["Synthia"]

_IDS = {
    3: "road",
    4: "sidewalk",
    2: "building",
    21: "wall",
    5: "fence",
    7: "pole",
    15: "light",
    9: "sign",
    6: "vegetation",
    16: "terrain",
    1: "sky",
    10: "person",
    17: "rider",
    8: "car",
    18: "truck",
    19: "bus",
    20: "train",
    12: "motorcycle",
    11: "bicycle",
}
_IGNORED = (0, 13, 14, 22)
"""Void, parking slot, road work and lane marking."""

_CONVERTED = "_labelTrainIds"
"""The ending of masks that a converter may have written beside the published ones."""


class Synthia(Dataset):
    """SYNTHIA below ``root``: its folder, or one that holds ``synthia``, ``SYNTHIA`` or ``RAND_CITYSCAPES``.

    Raises:
        InputError: if the folder has another layout, for an image without a mask or a mask without an image, or if a
            list names a missing image.
    """

    label_space = SPACES["cityscapes19"]
    never = ("terrain", "truck", "train")

    def __init__(self, root: Path) -> None:
        inner = [f"{name}/RAND_CITYSCAPES" for name in ("synthia", "SYNTHIA")]
        self.root = find_root(Path(root), *inner, "synthia", "SYNTHIA", "RAND_CITYSCAPES")
        images, labels = self.root / "RGB", self.root / "GT" / "LABELS"
        if not (images.is_dir() and labels.is_dir()):
            raise AbsentError(f"{self.root}: no SYNTHIA here; it has RGB/*.png and GT/LABELS/*.png (RAND_CITYSCAPES)")
        items = pair(_by_path(images), _by_path(labels), images, mask=f"{labels}/{{}}")
        self._index = split(items, images, "synthia_split_{}.txt", drawn=(3, 10))
        self._map = RawMap.of({raw: self.label_space.index(name) for raw, name in _IDS.items()}, ignored=_IGNORED)

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """One domain ``rand-cityscapes`` with the splits ``train`` and ``val``."""
        return {"rand-cityscapes": self._index}

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image and its mask with the ids of cityscapes19."""
        assert isinstance(item, tuple)
        image = read_image(item[0])
        return image, self._label(item[0], image.shape[:2], item[1])

    def read_label(self, item: Item) -> np.ndarray:
        """Only the mask."""
        assert isinstance(item, tuple)
        return self._label(item[0], image_size(item[0]), item[1])

    def _label(self, image: Path, size: Sequence[int], mask: Path) -> np.ndarray:
        raw = _first_channel(mask)
        same_size(image, size, mask, raw.shape)
        return self._map.apply(raw, mask)


def _first_channel(path: Path) -> np.ndarray:
    """(H, W) uint16: the red channel of a 16-bit RGB PNG."""
    high, low = (_bytes(path, order).astype(np.uint16) for order in ("RGB;16B", "RGB;16L"))
    channel: np.ndarray = high << 8 | low
    return channel


def _bytes(path: Path, order: str) -> np.ndarray:
    """(H, W) uint8: the byte of the red channel that Pillow keeps if it reads the samples in this byte ``order``."""
    with opened(path) as image:
        stored = image.tile[0].args
        if image.format != "PNG" or stored != "RGB;16B":
            raise InputError(f"{path}: it stores {stored}, but labels of SYNTHIA are 16-bit RGB; fetch it again")
        image.tile = [image.tile[0]._replace(args=order)]
        image.load()
        return np.array(image)[..., 0]


def _by_path(folder: Path) -> dict[str, Path]:
    found = (path for path in files(folder, ".png") if not path.stem.endswith(_CONVERTED))
    return {path.relative_to(folder).as_posix(): path for path in found}
