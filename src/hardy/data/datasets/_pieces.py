"""Splits of a data set that is published without splits: by folders, by lists beside it, or every n-th image."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from hardy.data.base import Item
from hardy.data.finding import composed
from hardy.errors import InputError

__all__ = ["split"]

_log = logging.getLogger("hardy")

_FOLDERS = {"train": "train", "val": "val", "valid": "val", "test": "test"}
_SPLITS = ("train", "val", "test")

Pair = tuple[Path, Path]


def split(
    items: Sequence[Pair],
    images: Path,
    lists: str,
    *,
    drawn: tuple[int, int],
    left_out: Collection[str] = (),
) -> dict[str, list[Item]]:
    """The ``train``, ``val`` and ``test`` items; empty splits are left out.

    If the images are in folders of these names (``valid`` is ``val``), the folders are the splits. Otherwise lists are
    used: text files with one file name per line, in the folder that holds ``images`` or in its ``split_data``; an image
    that is on no list is in no split. Without lists, the first a of every b images in order are ``val`` and the others
    ``train``, with a warning.

    Args:
        items: (image, mask) paths, in order.
        images: the folder of the images.
        lists: the file name of a list, with ``{}`` for the split.
        drawn: (a, b).
        left_out: stems of images that lists may name although they are not among ``items``.

    Raises:
        InputError: if only some images are in such folders, or a list names a missing image.
    """
    found = _by_folder(items, images) or _by_list(items, images, lists, left_out)
    if not found:
        most, period = drawn
        found = {"train": [], "val": []}
        for place, item in enumerate(items):
            found["val" if place % period < most else "train"].append(item)
        _log.warning(
            "%s: no lists %s beside it; val is the first %d of every %d images in order, not the published split",
            images,
            lists.format("{train,val}"),
            most,
            period,
        )
    return {name: found[name] for name in _SPLITS if found.get(name)}


def _by_folder(items: Sequence[Pair], images: Path) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    alone: list[Path] = []
    for item in items:
        top = item[0].relative_to(images).parts[0]
        if top in _FOLDERS:
            found.setdefault(_FOLDERS[top], []).append(item)
        else:
            alone.append(item[0])
    if found and alone:
        raise InputError(f"{alone[0]}: it is in none of the folders train, val and test ({len(alone)} such); move it")
    return found


def _by_list(items: Sequence[Pair], images: Path, lists: str, left_out: Collection[str]) -> dict[str, list[Item]]:
    by_stem = {composed(item[0].stem): item for item in items}
    found: dict[str, list[Item]] = {}
    for name in _SPLITS:
        places = (folder / lists.format(name) for folder in (images.parent, images.parent / "split_data"))
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            continue
        stems = [
            composed(Path(line.strip()).stem) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        missing = [stem for stem in stems if stem not in by_stem and stem not in {*map(composed, left_out)}]
        if missing:
            raise InputError(f"{file}: it names {missing[0]}, which is not in {images} ({len(missing)} such); fetch it")
        found[name] = [by_stem[stem] for stem in stems if stem in by_stem]
    return found
