"""A folder of your own images: ``images/``, ``masks/`` and ``classes.yaml``.

Each file of ``images/`` has its mask in ``masks/`` under the same relative path (endings may differ). Sub-folders are
domains, named by their path; images directly in ``images/`` are the domain ``all``. A mask is an index PNG (8 or 16
bits) or a palette PNG with the ``id``s of ``classes.yaml``, or an RGB image with its ``colour``s; a folder can have
both. Masks in a lossy format, such as JPEG, are refused. For the format of ``classes.yaml`` see
`hardy.data.label_spaces.read_classes`. If ``train.txt``, ``val.txt`` or ``test.txt`` are beside it, they are the
splits: each line is the path of an image in ``images/`` without its ending. An image that is on no list is in no split.

Source: the layout is Hardy's own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from hardy.data.base import AbsentError, Item, find_root
from hardy.data.finding import composed, files, pair
from hardy.data.label_spaces import read_classes
from hardy.data.rawmap import IGNORE
from hardy.data.reading import ImageAndMask, ImagesAndMasks, Palette
from hardy.errors import InputError

__all__ = ["Folder"]

_SPLITS = ("train", "val", "test")


class Folder(ImagesAndMasks):
    """The images and masks below ``root``, which is the folder itself or one that holds it as ``folder``.

    Args:
        root: the folder of ``images/``, ``masks/`` and ``classes.yaml``.
        mask_ending: the suffix of a mask's name after its image's name: ``"_mask"`` if the mask of ``a.jpg`` is
            ``a_mask.png``.
        palette: what is read from a palette mask: the ``ids``, the ``colours`` of its palette, or ``agree``: the ids,
            and a palette colour that ``classes.yaml`` gives to another class is an error.

    Raises:
        InputError: if a part is missing or empty, for an image without a mask or a mask without an image, or for two
            images that differ only in their ending.
    """

    def __init__(
        self, root: Path, *, mask_ending: str = "", palette: Literal["agree", "ids", "colours"] = "agree"
    ) -> None:
        self.root = Path(root) if (Path(root) / "images").is_dir() else find_root(Path(root), "folder")
        if not self.root.is_dir():
            raise AbsentError(f"{self.root}: there is no such folder; it holds images/, masks/ and classes.yaml")
        declared = self.root / "classes.yaml"
        if not declared.is_file():
            raise AbsentError(f"{declared}: there is no such file; it names the classes of the masks")
        if palette not in get_args(Palette):
            raise InputError(f"Folder.palette is {palette!r}; it is one of: {', '.join(get_args(Palette))}")
        classes = read_classes(declared)
        self.label_space = classes.space
        if classes.ids.table[IGNORE] == IGNORE:
            self.void = f"{IGNORE}, or declared so in {declared}; give a class `id: {IGNORE}` if it has that id"
        self._files = ImageAndMask(classes.ids, classes.colours, palette=palette, classes=self.label_space.classes)
        images, masks = _by_path(self.root / "images", ""), _by_path(self.root / "masks", mask_ending)
        self._index: dict[str, list[tuple[Path, Path]]] = {}
        for item in pair(
            images,
            masks,
            self.root / "images",
            mask=f"{self.root}/masks/{{}}{mask_ending}.*",
            image=f"{self.root}/images/{{}}.*",
            hint=_hint(images, masks, mask_ending),
        ):
            domain = composed(item[0].parent.relative_to(self.root / "images").as_posix())
            self._index.setdefault("all" if domain == "." else domain, []).append(item)
        self._lists = _lists(self.root, images)

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Each sub-folder's images by split, or in a single split ``all``."""
        if not self._lists:
            return {domain: {"all": self._index[domain]} for domain in sorted(self._index)}
        found: dict[str, dict[str, list[tuple[Path, Path]]]] = {}
        for domain in sorted(self._index):
            for split, keys in self._lists.items():
                if own := [item for item in self._index[domain] if _key(item[0], self.root / "images") in keys]:
                    found.setdefault(domain, {})[split] = own
        return found


def _lists(root: Path, images: Mapping[str, Path]) -> dict[str, set[str]]:
    """Split -> the keys of its images, from the lists in ``root``."""
    found: dict[str, set[str]] = {}
    for split in _SPLITS:
        file = root / f"{split}.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            found[split] = {composed(line.strip()) for line in lines if line.strip()}
            if missing := sorted(found[split] - images.keys()):
                raise InputError(
                    f"{file}: it names {missing[0]}, which is not in {root / 'images'} ({len(missing)} such); correct "
                    "the list or add the image"
                )
    return found


def _key(path: Path, folder: Path) -> str:
    """The key of an image: its relative path without ending."""
    return composed(path.relative_to(folder).with_suffix("").as_posix())


def _by_path(folder: Path, ending: str) -> dict[str, Path]:
    """Relative path without ending -> file."""
    found: dict[str, Path] = {}
    for path in files(folder):
        key = _key(path, folder)
        key = key[: -len(ending)] if ending and key.endswith(ending) else key
        if key in found:
            raise InputError(f"{path}: {found[key].name} in the same folder has the same name; remove one of them")
        found[key] = path
    return found


def _hint(images: Mapping[str, Path], masks: Mapping[str, Path], ending: str) -> str:
    """A hint about ``mask_ending``, if the first image without a mask has one with a longer name."""
    alone = min(images.keys() - masks.keys(), default=None)
    longer = [key for key in masks.keys() - images.keys() if alone is not None and key.startswith(alone)]
    if not longer:
        return f" (mask_ending is {ending!r})" if ending else ""
    found = min(longer, key=len)
    return f"; if its mask is {masks[found]}, set data.datasets.folder.mask_ending={found[len(alone or '') :]}"
