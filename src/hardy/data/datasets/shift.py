"""SHIFT: simulated driving sequences with known weather and time of day; each combination is a domain.

Layout: ``{discrete,continuous/1x,continuous/10x,continuous/100x}/images/{train,val}/front/``, in it
``img/{sequence}/*_img_front.jpg`` and ``semseg/{sequence}/*_semseg_front.png`` (1280x800, the class in the first
channel). Unpack ``img.zip`` and ``semseg.zip``. The data are at vis.xyz/shift; the labels of the test split are not
public.

In a discrete sequence, weather and time do not change: ``seq.csv`` has a line for each sequence, with ``video``,
``start_weather_coarse`` and ``start_timeofday_coarse``. In a continuous sequence, of 1, 10 or 100 times the length,
they change from frame to frame: ``weather_coarse`` and ``timeofday_coarse`` are in the ``attributes`` of the frame's
entry in ``det_2d.json`` (``videoName`` is the sequence, ``name`` the file of the image).

The domains are ``{clear,cloudy,overcast,rainy,foggy}_{daytime,dawn_dusk,night}``; the usual source is
``clear_daytime``. Domains of continuous sequences begin with ``1x_``, ``10x_`` or ``100x_``. A continuous sequence
passes through several domains; a stream of the kind ``recorded`` has its frames in their order.

Labels have the ids of cityscapes19, with the authors' map: road lines are road, and all vehicles are cars.

Source: Sun, Segu, Postels, Wang, Van Gool, Schiele, Tombari and Yu, "SHIFT: a synthetic driving dataset for continuous
multi-task domain adaptation", CVPR 2022.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import AbsentError, Dataset, Item, find_root
from hardy.data.decoding import image_size, raw_mask, read_image
from hardy.data.finding import by_frame, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import same_size
from hardy.errors import InputError
from hardy.stored import contents, json_value

__all__ = ["SHIFT"]

_SETS = {"discrete": "", "continuous/1x": "1x_", "continuous/10x": "10x_", "continuous/100x": "100x_"}
"""The folder of each set, and the prefix of the names of its domains."""
_SPLITS = ("train", "val")
_IMAGE, _MASK = "_img_front.jpg", "_semseg_front.png"
_COLUMNS = ("video", "start_weather_coarse", "start_timeofday_coarse")
_ATTRIBUTES = ("weather_coarse", "timeofday_coarse")
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
        InputError: if there is no split, if ``seq.csv`` or ``det_2d.json`` is missing or lacks a sequence or a frame,
            or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]
    never = ("rider", "truck", "bus", "train", "motorcycle", "bicycle")

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "shift", "SHIFT")
        self._map = RawMap.of({raw: self.label_space.index(name) for raw, name in _IDS.items()}, ignored=_IGNORED)
        found: dict[str, dict[str, list[Item]]] = {}
        for folder, start in _SETS.items():
            for split in _SPLITS:
                place = self.root / folder / "images" / split / "front"
                for domain, item in _items(place, continuous=bool(start)):
                    found.setdefault(start + domain, {}).setdefault(split, []).append(item)
        if not found:
            raise AbsentError(
                f"{self.root}: no SHIFT here; it has discrete/images/{{train,val}}/front/{{img,semseg}}, or "
                "continuous/{1x,10x,100x} instead of discrete"
            )
        names = (f"{start}{weather}_{time}" for start in _SETS.values() for weather in _WEATHERS for time in _TIMES)
        self._index = {name: found[name] for name in names if name in found}

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """The images of each weather and time of day, by published split, in the order of their sequences."""
        return self._index

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
        pixels = raw_mask(mask).pixels
        raw = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., 0])
        same_size(image, size, mask, raw.shape)
        return self._map.apply(raw, mask)


def _items(place: Path, *, continuous: bool) -> Iterator[tuple[str, tuple[Path, Path]]]:
    """The domain of each image in ``place``, and the image with its mask, in order; empty if ``place`` is missing."""
    images, truth = place / "img", place / "semseg"
    if not images.is_dir():
        return
    domains = _of_frames(place / "det_2d.json") if continuous else _of_sequences(place / "seq.csv")
    named = {"mask": f"{truth}/{{}}{_MASK}", "image": f"{images}/{{}}{_IMAGE}"}
    for item in pair(by_frame(images, _IMAGE), by_frame(truth, _MASK), images, **named):
        yield domains(item[0]), item


def _of_sequences(file: Path) -> Callable[[Path], str]:
    """A function from an image to its domain, by the entry of its sequence in ``file``.

    Raises:
        InputError: if the file is missing, lacks a column, or has an unknown weather or time. The function raises it
            for a sequence that the file does not have.
    """
    _there(file, "sequence")
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (table.fieldnames or ())]
        if missing:
            raise InputError(f"{file}: it has no column {missing[0]!r}; fetch it again")
        found = {
            line["video"]: _domain(file, f"sequence {line['video']}", *(line[of] for of in _COLUMNS[1:]))
            for line in table
        }

    def domain(image: Path) -> str:
        sequence = image.parent.name
        if sequence not in found:
            raise InputError(f"{file}: it has no entry for the sequence {sequence!r} of {image}; fetch it again")
        return found[sequence]

    return domain


def _of_frames(file: Path) -> Callable[[Path], str]:
    """A function from an image to its domain, by the entry of the frame in ``file``.

    Raises:
        InputError: if the file is missing, or lacks the weather or time of a frame, or has unknown ones. The function
            raises it for a frame that the file does not have.
    """
    _there(file, "frame")
    found: dict[tuple[str, str], str] = {}
    try:
        for frame in json_value(contents(file))["frames"]:
            name, says = (str(frame["videoName"]), str(frame["name"])), frame["attributes"]
            found[name] = _domain(file, f"frame {'/'.join(name)}", *(says[of] for of in _ATTRIBUTES))
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file}: it does not have the weather and time of each frame ({error}); fetch it again"
        ) from None

    def domain(image: Path) -> str:
        name = image.parent.name, image.name
        if name not in found:
            raise InputError(f"{file}: it has no entry for the frame {'/'.join(name)!r} of {image}; fetch it again")
        return found[name]

    return domain


def _there(file: Path, of: str) -> None:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; it has the weather of each {of}: fetch it with img.zip")


def _domain(file: Path, what: str, weather: str | None, time: str | None) -> str:
    known = (time or "").replace("/", "_")
    if weather not in _WEATHERS or known not in _TIMES:
        raise InputError(f"{file}: {what} is {weather!r} at {known!r}; fetch it again")
    return f"{weather}_{known}"
