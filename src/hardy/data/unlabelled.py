"""Images without labels from folders, at any depth: found, checked, and read as one more source."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import Dataset, Domain, Item
from hardy.data.check import SAMPLE
from hardy.data.containers import ends_whole
from hardy.data.decoding import read_image
from hardy.data.finding import files
from hardy.data.label_spaces import LabelSpace
from hardy.errors import InputError
from hardy.files import expanded
from hardy.types import IGNORE

__all__ = ["Folders", "check_images", "find", "source", "without"]

Folders = Sequence[tuple[str, tuple[Path, ...]]]
"""The names of folders, as given, with the images below each of them."""


class _Unlabelled(Dataset):
    """Images whose label is `IGNORE`: every pixel of a mask, or the class of an image."""

    def __init__(self, label_space: LabelSpace, *, image_level: bool) -> None:
        self.label_space, self.image_level = label_space, image_level

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """Empty: the caller gives the images."""
        return {}

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """See `Dataset.read`."""
        assert isinstance(item, Path)
        image = read_image(item)
        if self.image_level:
            return image, np.array(IGNORE, dtype=np.int64)
        return image, np.full(image.shape[:2], IGNORE, dtype=np.uint8)


def find(folders: Sequence[str], root: Path, key: str = "data.unlabelled") -> Folders:
    """The images below each of ``folders``, sorted; a folder that does not exist is searched for below ``root``.

    Args:
        folders: their paths.
        root: of the data sets.
        key: the setting that names them, for errors.

    Raises:
        InputError: for a folder that is missing or contains no image, or an image that is in two of them.
    """
    found: list[tuple[str, tuple[Path, ...]]] = []
    owners: dict[Path, str] = {}
    for name in folders:
        place = expanded(name)
        place = place if place.is_dir() or not (root / place).is_dir() else root / place
        try:
            images = tuple(files(place))
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
        if not images:
            raise InputError(f"{key}: {place} contains no images; name a folder with images at any depth")
        for image in images:
            if (owner := owners.setdefault(image.resolve(), name)) != name:
                raise InputError(f"{key}: {image} is in {owner} and in {name}; name one of them")
        found.append((name, images))
    return tuple(found)


def without(folders: Folders, held: Iterable[Item], unseen: Iterable[tuple[str, Item]]) -> Folders:
    """``folders`` without the ``held``-out images, which select the weights.

    Args:
        folders: see `find`.
        held: items of the validation images.
        unseen: (domain, item) of the images of unseen domains.

    Raises:
        InputError: for an image of an unseen domain, which training must not see, and if a folder has no image left.
    """
    own = {image.resolve() for _, images in folders for image in images}
    if both := [(name, path) for name, item in unseen if (path := _path(item)) in own]:
        name, path = both[0]
        raise InputError(
            f"data.unlabelled: {path} is an image of the unseen domain {name} ({len(both)} such images); remove it "
            "from the folder, or the domain from data.unseen"
        )
    out = {_path(item) for item in held}
    left = tuple((name, tuple(image for image in images if image.resolve() not in out)) for name, images in folders)
    for name, images in left:
        if not images:
            raise InputError(f"data.unlabelled: every image in {name} is held out to select the weights")
    return left


def check_images(folders: Folders, *, every: bool) -> None:
    """Decode a sample of the images and all files without a proper end; or ``every`` image.

    Raises:
        InputError: for the first image that cannot be read; names it.
    """
    for _, images in folders:
        sample = {int(place) for place in np.linspace(0, len(images) - 1, min(SAMPLE, len(images)))}
        for place, image in enumerate(images):
            if every or place in sample or not ends_whole(image):
                read_image(image)


def source(
    folders: Folders, label_space: LabelSpace, *, image_level: bool, name: str = "unlabelled"
) -> tuple[Domain, tuple[Path, ...]]:
    """All images of ``folders`` as one domain ``name`` with its items; its labels are in ``label_space``."""
    images = tuple(image for _, images in folders for image in images)
    return Domain(name, _Unlabelled(label_space, image_level=image_level), {}), images


def _path(item: Item) -> Path | None:
    """The path of the image of ``item``, if it is a file."""
    first = item[0] if isinstance(item, tuple) else item
    return first.resolve() if isinstance(first, Path) else None
