"""SHIFT: drawn driving sequences whose weather and time of day are known; each combination is a domain.

Layout: ``discrete/images/{train,val}/front/``, in it ``img/{sequence}/*_img_front.jpg``,
``semseg/{sequence}/*_semseg_front.png`` (1280x800, the class in the first channel) and ``seq.csv``, with a line for
each sequence: ``video``, ``start_weather_coarse`` and ``start_timeofday_coarse``. Unpack ``img.zip`` and
``semseg.zip``. The domains are ``{clear,cloudy,overcast,rainy,foggy}_{daytime,dawn_dusk,night}``; the usual source is
``clear_daytime``. The data are at vis.xyz/shift; the labels of the test split are not public.

Labels are in the ids of cityscapes19, as the authors map theirs: road lines are road, and all vehicles are cars.

Source: Sun, Segu, Postels, Wang, Van Gool, Schiele, Tombari and Yu, "SHIFT: a synthetic driving dataset for continuous
multi-task domain adaptation", CVPR 2022.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import AbsentError, Dataset, Item, find_root
from hardy.data.decoding import image_size, raw_mask, read_image
from hardy.data.finding import by_frame, pair
from hardy.data.labels import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import same_size
from hardy.errors import InputError

__all__ = ["SHIFT"]

_SPLITS = ("train", "val")
_IMAGE, _MASK = "_img_front.jpg", "_semseg_front.png"
_COLUMNS = ("video", "start_weather_coarse", "start_timeofday_coarse")
_WEATHERS = ("clear", "cloudy", "overcast", "rainy", "foggy")
_TIMES = ("daytime", "dawn_dusk", "night")
_IDS = {
    1: "building",
    2: "fence",
    4: "person",
    5: "pole",
    6: "road",
    7: "road",
    8: "sidewalk",
    9: "vegetation",
    10: "car",
    11: "wall",
    12: "sign",
    13: "sky",
    18: "light",
    22: "terrain",
}
_IGNORED = (0, 3, 14, 15, 16, 17, 19, 20, 21)
"""Unlabelled, other, ground, bridge, rail track, guard rail, static, dynamic and water."""


class SHIFT(Dataset):
    """SHIFT below ``root``, which is its folder or one that holds ``shift`` or ``SHIFT``.

    Raises:
        InputError: when no split is there, ``seq.csv`` is missing or does not name a sequence, or an image lacks its
            mask or a mask its image.
    """

    labels = SPACES["cityscapes19"]
    never = ("rider", "truck", "bus", "train", "motorcycle", "bicycle")

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "shift", "SHIFT")
        self._map = RawMap.of({raw: self.labels.index(name) for raw, name in _IDS.items()}, ignored=_IGNORED)
        found: dict[str, dict[str, list[Item]]] = {}
        for split in _SPLITS:
            place = self.root / "discrete" / "images" / split / "front"
            images, truth = place / "img", place / "semseg"
            if not images.is_dir():
                continue
            domains = _domains(place / "seq.csv")
            named = {"mask": f"{truth}/{{}}{_MASK}", "image": f"{images}/{{}}{_IMAGE}"}
            for item in pair(by_frame(images, _IMAGE), by_frame(truth, _MASK), images, **named):
                sequence = item[0].parent.name
                if sequence not in domains:
                    raise InputError(f"{place / 'seq.csv'}: names no sequence {sequence!r}, but {item[0]} is of it")
                found.setdefault(domains[sequence], {}).setdefault(split, []).append(item)
        if not found:
            raise AbsentError(f"{self.root}: no SHIFT here; it has discrete/images/{{train,val}}/front/{{img,semseg}}")
        names = (f"{weather}_{time}" for weather in _WEATHERS for time in _TIMES)
        self._index = {name: found[name] for name in names if name in found}

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each weather and time of day, by published split; frames in the order of their sequences."""
        return self._index

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The image and its mask in the ids of cityscapes19."""
        assert isinstance(item, tuple)
        image = read_image(item[0])
        return image, self._label(item[0], image.shape[:2], item[1])

    def read_label(self, item: Item) -> np.ndarray:
        """The mask alone."""
        assert isinstance(item, tuple)
        return self._label(item[0], image_size(item[0]), item[1])

    def _label(self, image: Path, size: Sequence[int], mask: Path) -> np.ndarray:
        pixels = raw_mask(mask).pixels
        raw = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])
        same_size(image, size, mask, raw.shape)
        return self._map.apply(raw, mask)


def _domains(file: Path) -> dict[str, str]:
    """The domain of each sequence that ``file`` names.

    Raises:
        InputError: for a file that is missing, without one of the columns, or with an unknown weather or time.
    """
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; it says the weather of each sequence: fetch it with img.zip")
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise InputError(f"{file}: has no column {missing[0]!r}; fetch it again")
        found = {}
        for line in table:
            weather, time = line[_COLUMNS[1]], (line[_COLUMNS[2]] or "").replace("/", "_")
            if weather not in _WEATHERS or time not in _TIMES:
                raise InputError(f"{file}: sequence {line['video']} is {weather!r} at {time!r}; fetch it again")
            found[line["video"]] = f"{weather}_{time}"
    return found
