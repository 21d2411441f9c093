"""Mapillary Vistas 1.2: 18,000 + 2,000 large street images from all continents, in 19 of their 66 classes.

Layout: ``{training,validation}/images/*.jpg`` with ``{training,validation}/labels/*.png``, or with ``v1.2/labels`` in
the archive that also contains version 2.0 (mapillary.com/dataset/vistas); index masks with the ids 0..65. One domain,
``v1.2``, with the splits ``train`` and ``val``. The test split is left out because its masks are not public. Images are
not resized here; use `data.size`.

Papers use two maps onto the 19 classes of Cityscapes, and their scores cannot be compared. ``openseg`` also counts
crosswalks and lanes for bikes, parking and service as road, kerb cuts and pedestrian areas as sidewalk, street lights
as poles, and the frames and backs of signs as signs. ``robustnet`` ignores all these, but counts manholes as road.

Source: Neuhold, Ollmann, Rota Bulo and Kontschieder, "The Mapillary Vistas dataset for semantic understanding of street
scenes", ICCV 2017; the maps as in openseg.pytorch (Yuan et al.; also used by HRDA and Rein) and in RobustNet (Choi et
al., CVPR 2021; also used by SHADE).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_name, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import IGNORE, RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks
from hardy.errors import InputError

__all__ = ["Mapillary"]

_SPLITS = {"train": "training", "val": "validation"}
_CLASSES = 66

_BOTH = {
    "road": (13, 24),  # road; general lane marking
    "sidewalk": (2, 15),  # kerb; sidewalk
    "building": (17,),
    "wall": (6,),
    "fence": (3,),
    "pole": (45, 47),  # pole; utility pole
    "light": (48,),
    "sign": (50,),  # front of a traffic sign
    "vegetation": (30,),
    "terrain": (29,),
    "sky": (27,),
    "person": (19,),
    "rider": (20, 21, 22),  # bicyclist, motorcyclist, other rider
    "car": (55,),
    "truck": (61,),
    "bus": (54,),
    "train": (58,),  # on rails
    "motorcycle": (57,),
    "bicycle": (52,),
}
_ONLY: dict[str, dict[str, tuple[int, ...]]] = {
    "openseg": {
        "road": (7, 8, 10, 14, 23),  # bike lane, plain crosswalk, parking, service lane, lane marking of a crosswalk
        "sidewalk": (9, 11),  # kerb cut, pedestrian area
        "pole": (44,),  # street light
        "sign": (46, 49),  # frame and back of a traffic sign
    },
    "robustnet": {"road": (41,)},  # manhole
}


class Mapillary(ImagesAndMasks):
    """Mapillary Vistas below ``root``, which is its folder or one that holds ``mapillary`` or ``mapillary_vistas``.

    Args:
        root: the folder of ``training`` and ``validation``.
        labels: the map from the 66 classes onto 19; see the module.

    Raises:
        InputError: for an unknown map, if there is no split, or for an image without a mask or a mask without an image.
    """

    def __init__(self, root: Path, *, labels: Literal["openseg", "robustnet"] = "openseg") -> None:
        if labels not in _ONLY:
            raise InputError(f"Mapillary.labels is {labels!r}; it is one of: {', '.join(_ONLY)}")
        self.label_space = SPACES["cityscapes19"]
        self.root = find_root(Path(root), "mapillary", "Mapillary", "mapillary_vistas")
        ids = {
            raw: self.label_space.index(name) for part in (_BOTH, _ONLY[labels]) for name in part for raw in part[name]
        }
        self._files = ImageAndMask(RawMap.of(ids, ignored=(*range(_CLASSES), IGNORE)))
        self._index: dict[str, list[Item]] = {}
        for split, folder in _SPLITS.items():
            if (self.root / folder).is_dir():
                images = self.root / folder / "images"
                masks = find_root(self.root / folder, "v1.2/labels", "labels")
                named = {"mask": f"{masks}/{{}}.png", "image": f"{images}/{{}}.jpg"}
                self._index[split] = list(pair(by_name(images, ".jpg"), by_name(masks, ".png"), images, **named))
        if not self._index:
            raise AbsentError(f"{self.root}: no Mapillary here; it has {{training,validation}}/images and labels")

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """One domain ``v1.2`` with the splits ``train`` (training) and ``val`` (validation)."""
        return {"v1.2": self._index}
