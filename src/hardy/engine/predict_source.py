"""The images that a source of `hardy.engine.predict` names, and the check that no mask overwrites one of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.engine import pictures, videos
from hardy.engine.mask_writer import DRAWN
from hardy.engine.pictures import Picture
from hardy.errors import InputError
from hardy.files import expanded

__all__ = ["Found", "files_of", "pictures_of", "watched_of"]

Found = Callable[[pictures.Done, pictures.Bound], Iterator[Picture | None]]
"""Pictures, without the pixels of those that are done and of those that are too large."""


def pictures_of(
    source: Path | str | np.ndarray, target: Path, kinds: Sequence[str], most: int | None
) -> tuple[Found, int | None]:
    """A function that yields the pictures, and their number if it is known.

    Raises:
        InputError: for a source that is missing or empty, two images with the same mask name, or a mask that would
            overwrite an image.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise InputError(f"an image array must be (H, W, 3) uint8; got {source.shape} {source.dtype}")
        return lambda done, bound: pictures.decoded([("image", source)], done), 1
    if video := videos.source_of(str(expanded(source))):
        if video.path is not None and not video.path.is_file():
            raise InputError(f"{video}: there is no such video")
        return lambda done, bound: pictures.frames(video, most, done), most
    if most is not None:
        raise InputError(f"frames {most}: {source} is no video or camera; leave it out")
    named = files_of(expanded(source), target, kinds)
    return lambda done, bound: pictures.decoded(named.items(), done, bound), len(named)


def files_of(place: Path, target: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """The image files of a file, folder or pattern by the name of their mask, in order.

    Raises:
        InputError: as `pictures_of`.
    """
    named, root = pictures.find(place)
    named = _outside(named, root if place.is_dir() else None, target)
    if not named:
        raise InputError(f"{place}: holds no images outside {target}")
    _check_targets(named, target, kinds)
    return named


def watched_of(source: Path | str | np.ndarray, target: Path) -> Path:
    """The folder ``source``, whose images are to be predicted as they arrive.

    Raises:
        InputError: when it is no folder, or the masks would be among the images.
    """
    place = Path() if isinstance(source, np.ndarray) else expanded(source)
    if isinstance(source, np.ndarray) or not place.is_dir():
        raise InputError(f"watch: {'an array' if isinstance(source, np.ndarray) else source} is no folder; give one")
    if place.resolve().is_relative_to(target.resolve()):
        raise InputError(f"watch: the masks in {target} would be among the images of {place}; choose another target")
    return place


def _outside(named: Mapping[str, Path], root: Path | None, target: Path) -> dict[str, Path]:
    """The images without the masks of an earlier run in a target folder below their folder ``root``."""
    below = target.resolve()
    if root is None or below == root.resolve() or not below.is_relative_to(root.resolve()):
        return dict(named)
    return {name: path for name, path in named.items() if not path.resolve().is_relative_to(below)}


def _check_targets(named: Mapping[str, Path], target: Path, kinds: Sequence[str]) -> None:
    """Refuse a mask or drawing that would replace an image of the source, or a mask that is named as a drawing."""
    images = {path.resolve() for path in named.values()}
    places = {"mask": target, **{kind: target / DRAWN[kind] for kind in kinds}}
    for name, path in named.items():
        for what, where in places.items():
            file = where / f"{name}.png"
            if file.resolve() in images:
                victim = "it" if file.resolve() == path.resolve() else str(file)
                raise InputError(f"{path}: its {what} would overwrite {victim}; choose another target folder")
    for kind in kinds:
        if clash := sorted({f"{DRAWN[kind]}/{name}" for name in named} & named.keys()):
            raise InputError(
                f"{named[clash[0]]}: its mask would have the same name as an {DRAWN[kind].removesuffix('s')}; rename "
                "its folder"
            )
