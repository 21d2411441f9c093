"""Cityscapes: 2,975 + 500 finely labelled street images of 21 German-speaking cities, in 19 classes.

Layout: ``leftImg8bit/{train,val}/{city}/{city}_{seq}_{frame}_leftImg8bit.png`` with the masks in
``gtFine/{train,val}/{city}/..._gtFine_labelIds.png`` (2048x1024, raw ids 0..33). Each city is a domain with one split.
With ``domains: all`` there is one domain ``all`` with the published splits. The test split is left out because its
masks are not public.

Source: Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR 2016; raw ids as in
cityscapesScripts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_frame, pair
from hardy.data.label_spaces import CITYSCAPES_IDS, SPACES
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["Cityscapes"]

_SPLITS = ("train", "val")
_IMAGE = "_leftImg8bit.png"
_MASK = "_gtFine_labelIds.png"


class Cityscapes(ImagesAndMasks):
    """Cityscapes below ``root``, which is its folder or one that holds ``cityscapes``.

    Args:
        root: the folder of ``leftImg8bit`` and ``gtFine``.
        domains: ``city`` for a domain per city; ``all`` for a single domain, as in most papers.

    Raises:
        InputError: if there is no split, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path, *, domains: Literal["city", "all"] = "city") -> None:
        self.root = find_root(Path(root), "cityscapes", "Cityscapes")
        self._files = ImageAndMask(CITYSCAPES_IDS)
        self._index: dict[str, dict[str, list[Item]]] = {}
        for split in (name for name in _SPLITS if (self.root / "leftImg8bit" / name).is_dir()):
            folder, truth = self.root / "leftImg8bit" / split, self.root / "gtFine" / split
            named = {"mask": f"{truth}/{{}}{_MASK}", "image": f"{folder}/{{}}{_IMAGE}"}
            for item in pair(by_frame(folder, _IMAGE), by_frame(truth, _MASK), folder, **named):
                domain = item[0].parent.name if domains == "city" else "all"
                self._index.setdefault(domain, {}).setdefault(split, []).append(item)
        if not self._index:
            raise AbsentError(f"{self.root}: no Cityscapes here; it has leftImg8bit/{{train,val}} and gtFine")

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each domain's images by published split."""
        return {domain: self._index[domain] for domain in sorted(self._index)}
