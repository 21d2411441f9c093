"""C-Driving: 1,430 labelled street images of BDD100K by weather, for open compound domain adaptation, in 19 classes.

Layout: ``val/compound/{cloudy,rainy,snowy}/*.jpg`` and ``val/open/overcast/*.jpg`` (1280x720; ``overcast`` can also be
in ``compound``). The masks ``*_train_id.png`` are in the same folders, or in ``labels/`` with the same sub-folders, and
have the class ids of Cityscapes. Each weather is a domain with a single split ``val``. The 14,697 training images have
no labels: name their folder in ``data.unlabelled``. The data are linked at github.com/XingangPan/OCDA-Driving-Example.

Source: Liu, Miao, Pan, Zhan, Lin, Yu and Gong, "Open compound domain adaptation", CVPR 2020.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import by_name, pair
from hardy.data.label_spaces import SPACES
from hardy.data.rawmap import RawMap
from hardy.data.reading import ImageAndMask, ImagesAndMasks

__all__ = ["CDriving"]

_DOMAINS = ("cloudy", "rainy", "snowy", "overcast")
_FOLDERS = ("val/compound", "val/open")
_MASK = "_train_id.png"


class CDriving(ImagesAndMasks):
    """C-Driving below ``root``, which is its folder or one that holds ``C-Driving`` or ``c_driving``.

    Raises:
        InputError: if there is no weather, or for an image without a mask or a mask without an image.
    """

    label_space = SPACES["cityscapes19"]

    def __init__(self, root: Path) -> None:
        self.root = find_root(Path(root), "C-Driving", "c_driving")
        self._files = ImageAndMask(RawMap.identity(len(self.label_space)))
        self._index: dict[str, dict[str, list[Item]]] = {}
        for domain in _DOMAINS:
            for place in (f"{folder}/{domain}" for folder in _FOLDERS):
                folder, apart = self.root / place, self.root / "labels" / place
                if folder.is_dir() and domain not in self._index:
                    truth = apart if apart.is_dir() else folder
                    named = {"mask": f"{truth}/{{}}{_MASK}", "image": f"{folder}/{{}}.jpg"}
                    found = pair(by_name(folder, ".jpg"), by_name(truth, _MASK), folder, **named)
                    self._index[domain] = {"val": list(found)}
        if not self._index:
            raise AbsentError(
                f"{self.root}: no C-Driving here; it has val/compound/{{cloudy,rainy,snowy}} and val/open"
            )

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each weather's images, in the single split ``val``."""
        return self._index
