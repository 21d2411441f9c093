"""Finds the files of a dataset, at any depth and through links, and pairs masks with images.

Nothing is left out silently: an unreadable folder and a broken link are errors; a warning names circular links and
files that are not images. Names that differ only in the encoding of their accents (as between macOS and Linux: Unicode
NFD and NFC) are the same.
"""

import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hardy.errors import InputError, nearest

__all__ = ["IMAGE_SUFFIXES", "by_frame", "by_name", "composed", "files", "pair", "unpaired_left_out"]

_log = logging.getLogger("hardy")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm")
"""The endings, in lower case, of files that count as images."""

_OF_SYSTEMS = ("thumbs.db", "desktop.ini")
"""Files that operating systems leave beside images."""

_MOST_COMPARED = 200

_unpaired: ContextVar[list[Path] | None] = ContextVar("unpaired", default=None)


@contextmanager
def unpaired_left_out() -> Iterator[list[Path]]:
    """Inside the block `pair` leaves out images without masks and masks without images, and adds them to this list."""
    found: list[Path] = []
    before = _unpaired.set(found)
    try:
        yield found
    finally:
        _unpaired.reset(before)


def files(folder: Path, ending: str | Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files in ``folder``, at any depth, with one of these endings (in upper or lower case), sorted.

    Hidden files are left out. Linked folders are searched too. With the default endings, a warning names the other
    files.

    Raises:
        InputError: if ``folder`` is missing, a folder in it cannot be read, or a link to such a file is broken.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; check the data root and the layout")
    endings = tuple(end.lower() for end in ((ending,) if isinstance(ending, str) else ending))
    found: list[Path] = []
    others: list[Path] = []
    for path in _walk(folder):
        if path.name.startswith("."):
            continue
        if not path.name.lower().endswith(endings):
            others.append(path)
        elif path.is_symlink() and not path.exists():
            raise InputError(f"{path}: it links to {os.readlink(path)}, which is missing; fetch it or remove the link")
        else:
            (found if path.is_file() else others).append(path)
    left_out = [path for path in others if path.name.lower() not in _OF_SYSTEMS]
    if left_out and endings == IMAGE_SUFFIXES:
        count = f"{len(left_out)} file{'s are' if len(left_out) > 1 else ' is'}"
        _log.warning(
            "%s: %s left out, such as %s; images end in %s",
            folder,
            count,
            min(left_out).relative_to(folder),
            ", ".join(IMAGE_SUFFIXES),
        )
    return sorted(found)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything in ``folder``, at any depth, except folders; follows links unless they lead to a folder above."""
    real = Path(os.path.realpath(folder))
    waiting = [(folder, frozenset(map(str, (real, *real.parents))))]
    while waiting:
        place, above = waiting.pop()
        try:
            with os.scandir(place) as entries:
                below = sorted((entry.name, entry.is_dir(), entry.is_symlink()) for entry in entries)
        except OSError as error:
            raise InputError(f"{place}: it cannot be read: {error.strerror}; make it readable or remove it") from None
        for name, is_folder, is_link in below:
            path = place / name
            if not is_folder:
                yield path
            elif (target := os.path.realpath(path)) in above and is_link:
                _log.warning("%s: it links to %s, a folder above it, and is not followed", path, target)
            else:
                waiting.append((path, above | {target}))


def composed(name: str) -> str:
    """``name`` with accents as Linux and Windows encode them (Unicode NFC)."""
    return unicodedata.normalize("NFC", name)


def by_name(folder: Path, ending: str) -> dict[str, Path]:
    """The files of ``folder`` with this ending, keyed by their names without the ending.

    Raises:
        InputError: for two files with the same name in different folders, and what `files` raises.
    """
    return _keyed((path.name[: -len(ending)], path) for path in files(folder, ending))


def by_frame(folder: Path, *endings: str) -> dict[str, Path]:
    """As `by_name` for one or more endings, with the folder of each file in its key: ``folder/name``."""
    return _keyed(
        (f"{path.parent.name}/{path.name[: -len(ending)]}", path)
        for ending in endings
        for path in files(folder, ending)
    )


def _keyed(pairs: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    by_key: dict[str, Path] = {}
    for key, path in pairs:
        other = by_key.setdefault(composed(key), path)
        if other != path:
            raise InputError(f"{path}: it has the same name as {other}; rename or remove one of them")
    return by_key


def pair(
    images: Mapping[str, Path], masks: Mapping[str, Path], where: Path, *, mask: str, image: str = "", hint: str = ""
) -> list[tuple[Path, Path]]:
    """Each image with the mask of the same key, ordered by key.

    Args:
        images: the images by key.
        masks: the masks by key.
        where: the folder of the images.
        mask: the expected path of a mask, with ``{}`` for the key.
        image: the expected path of an image, with ``{}`` for the key; if empty, ``{}`` in ``where``.
        hint: added to the message about a missing mask.

    Raises:
        InputError: if there are no images, or for an image without a mask or a mask without an image (the message gives
            the first such file, their count and the expected name), or for two keys that differ only in the encoding of
            their accents.
    """
    images, masks = _keyed(images.items()), _keyed(masks.items())
    if (left_out := _unpaired.get()) is not None and images.keys() & masks.keys():
        left_out += [images[key] for key in sorted(images.keys() - masks.keys())]
        left_out += [masks[key] for key in sorted(masks.keys() - images.keys())]
        both = images.keys() & masks.keys()
        return [(images[key], masks[key]) for key in sorted(both)]
    image = image or f"{where}/{{}}"
    for kind, other, mine, theirs, looked_for, more in (
        ("image", "mask", images, masks, mask, hint),
        ("mask", "image", masks, images, image, ""),
    ):
        alone = sorted(mine.keys() - theirs.keys())
        if alone:
            unpaired = sorted(theirs.keys() - mine.keys())[:_MOST_COMPARED]
            raise InputError(
                f"{mine[alone[0]]}: {kind} without {other} ({len(alone)} such below {where}): there is no "
                f"{looked_for.replace('{}', alone[0])}{nearest(alone[0], unpaired)}; add it or remove the {kind}{more}"
            )
    if not images:
        raise InputError(f"{where}: it holds no images")
    return [(images[key], masks[key]) for key in sorted(images)]
