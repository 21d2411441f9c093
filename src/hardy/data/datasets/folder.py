"""A folder of your own images: ``images/``, ``masks/`` and ``classes.yaml``.

Each file of ``images/`` has its mask in ``masks/`` under the same relative path (endings may differ). Sub-folders are
domains, named by their path; images that lie directly in ``images/`` are the domain ``all``. A mask is an index PNG
(8 or 16 bits) or a palette PNG, whose ids the ``id``s of ``classes.yaml`` name, or an RGB image in its ``colour``s:
decided file by file. What ``classes.yaml`` may say is told by `hardy.data.labels.read_classes`.

Source: the layout is Hardy's own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hardy.data.base import Item, find_root
from hardy.data.labels import read_classes
from hardy.data.reading import ImageAndMask, ImagesAndMasks, files, pair
from hardy.errors import InputError

__all__ = ["Folder"]


class Folder(ImagesAndMasks):
    """The images and masks below ``root``, which is the folder itself or one that holds it as ``folder``.

    Args:
        root: where ``images/``, ``masks/`` and ``classes.yaml`` lie.
        mask_ending: what a mask's name has after its image's: ``"_mask"`` when ``a.jpg`` goes with ``a_mask.png``.

    Raises:
        InputError: when a part is missing or empty, an image lacks its mask or a mask its image, or two images
            differ only in their ending.
    """

    def __init__(self, root: Path, *, mask_ending: str = "") -> None:
        self.root = Path(root) if (Path(root) / "images").is_dir() else find_root(Path(root), "folder")
        if not self.root.is_dir():
            raise InputError(f"{self.root}: there is no such folder; it holds images/, masks/ and classes.yaml")
        declared = self.root / "classes.yaml"
        if not declared.is_file():
            raise InputError(f"{declared}: there is no such file; it names the classes of the masks")
        classes = read_classes(declared)
        self.labels = classes.space
        self._files = ImageAndMask(classes.ids, classes.colours)
        images = _by_path(self.root / "images", "")
        self._index: dict[str, list[Item]] = {}
        for item in pair(images, _by_path(self.root / "masks", mask_ending), self.root / "images"):
            domain = item[0].parent.relative_to(self.root / "images").as_posix()
            self._index.setdefault("all" if domain == "." else domain, []).append(item)

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each sub-folder's images, in the one split ``all``."""
        return {domain: {"all": self._index[domain]} for domain in sorted(self._index)}


def _by_path(folder: Path, ending: str) -> dict[str, Path]:
    """Relative path without ending -> file."""
    found: dict[str, Path] = {}
    for path in files(folder):
        key = path.relative_to(folder).with_suffix("").as_posix()
        key = key[: -len(ending)] if ending and key.endswith(ending) else key
        if key in found:
            raise InputError(f"{path}: {found[key].name} lies beside it with the same name; remove one of them")
        found[key] = path
    return found
