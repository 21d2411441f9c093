"""Derives problems and their fixes from what was seen: in one image, in a domain, and in all domains together."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardy.data.base import Domain, Item
from hardy.data.decoding import raw_mask, read_image
from hardy.data.doctor import alignment, twins
from hardy.data.doctor.looking import Seen
from hardy.data.doctor.problems import Level, Problems
from hardy.data.reading import ImagesAndMasks
from hardy.types import IGNORE

if TYPE_CHECKING:
    from hardy.data.doctor.examine import Examined

__all__ = ["of_all", "of_domain", "of_image"]

_SHOWN = 8
_CROPPED = 8
_LARGER = 0.1
_RATIO = 0.02

_LOOK = "look at them: hardy data show, with --only and a part of the name"

_FIXES = {
    "unreadable": "save them again as PNG of 8 bits, or remove them",
    "label": "correct the masks, or declare how they are read",
}


def of_image(problems: Problems, domain: Domain, seen: Seen) -> None:
    """Add the problems of one image, in place."""
    name = domain.name
    for kind, message, file in seen.failures:
        if kind != "size":
            what, _, fix = message.rpartition("; ")
            problems.add("mistake", kind, name, what or message, fix if what else _FIXES[kind], file, group=fix)
    if seen.foreign:
        _foreign(problems, domain, seen)
    labelled = int(seen.pixels[:IGNORE].sum())
    if domain.dataset.image_level or not (labelled or seen.pixels[IGNORE]):
        return
    if not labelled and not seen.foreign:
        what = f"{seen.name}: every pixel of its mask is ignored"
        problems.add("warning", "empty", name, what, "label them, or remove them: they do not help training", seen.name)
    elif len(domain.dataset.label_space) > 2 and np.count_nonzero(seen.pixels[:IGNORE]) == 1 and labelled:
        only = domain.dataset.label_space.classes[int(seen.pixels[:IGNORE].argmax())]
        what = f"{seen.name}: its mask has only the class {only}"
        problems.add("note", "uniform", name, what, _LOOK, seen.name)
    if seen.scores is not None:
        (down, across), ratio = alignment.offset(seen.scores)
        if max(abs(down), abs(across)) >= alignment.LEAST_OFFSET and ratio >= alignment.LEAST_RATIO:
            assert seen.size is not None
            by = alignment.factor(seen.size)
            what = f"{seen.name}: its mask fits {ratio:.1f} times better when moved by {_moved(by * down, by * across)}"
            problems.add("warning", "shifted", name, what, _LOOK, seen.name)


def _moved(down: int, across: int) -> str:
    vertical = f"{abs(down)} pixels {'down' if down > 0 else 'up'}" if down else ""
    horizontal = f"{abs(across)} pixels {'right' if across > 0 else 'left'}" if across else ""
    return " and ".join(filter(None, (vertical, horizontal)))


def _foreign(problems: Problems, domain: Domain, seen: Seen) -> None:
    """Add the problem of mask values outside of the label map, in place."""
    total, first = sum(seen.foreign.values()), next(iter(seen.foreign))
    if not first.startswith("("):
        values = ", ".join(f"{value} ({count} pixels)" for value, count in [*seen.foreign.items()][:_SHOWN])
        fix = "declare the ids in classes.yaml (`ignore: true` if they are not a class), or correct the masks"
        problems.add("mistake", "foreign", domain.name, f"{seen.name}: ids without a class: {values}", fix, seen.name)
    elif seen.near >= total / 2:
        what = (
            f"{seen.name}: {total} pixels in {len(seen.foreign)} or more colours near those of classes, such as {first}"
            ": damage by JPEG or by smooth resizing"
        )
        fix = "save the masks again as PNG from the originals, and resize only by nearest neighbour"
        problems.add("mistake", "blurred", domain.name, what, fix, seen.name)
    else:
        what = f"{seen.name}: colours without a class: {first} on {seen.foreign[first]} pixels"
        fix = "declare the colours in classes.yaml (`ignore: true` if they are not a class), or correct the masks"
        problems.add("mistake", "foreign", domain.name, what, fix, seen.name)


def of_domain(problems: Problems, one: "Examined") -> None:
    """Add the problems of a domain, in place."""
    name, dataset = one.domain.name, one.domain.dataset
    margin = dataset.reader.margin if isinstance(dataset, ImagesAndMasks) else None
    for (size, mask), items in one.cut.items():
        top, left = margin or (0, 0)
        cut = mask == (size[0] + top, size[1] + left)
        files = [dataset.name_of(item) for item in items]
        if cut:
            crop = _crop(size, (top, left))
            problems.add("note", "cut", name, _sizes(size, mask), f"none: the reader crops them: {crop}", *files)
        else:
            what, fix = _sizes(size, mask), _fit(size, mask, items)
            problems.add("mistake", "size", name, what, fix, *files, group=str((size, mask)))
    if len(one.sizes) > 1:
        most = ", ".join(f"{height}x{width} ({count})" for (height, width), count in one.sizes.most_common(4))
        height, width = (min(size[axis] for size in one.sizes) for axis in (0, 1))
        what = f"images of {len(one.sizes)} sizes: {most}{', ...' if len(one.sizes) > 4 else ''}"
        problems.add("note", "sizes", name, what, f"a data.crop of up to [{height}, {width}] fits every image")
    if one.scores:
        (down, across), ratio = alignment.offset(one.scores[0])
        if max(abs(down), abs(across)) >= alignment.LEAST_COMMON and ratio > 1:
            by = alignment.factor(max(one.sizes, key=max))
            what = f"all masks together fit {ratio:.1f} times better when moved by {_moved(by * down, by * across)}"
            problems.add("warning", "all shifted", name, what, "find the processing step that moved them, and undo it")


def _sizes(size: tuple[int, int], mask: tuple[int, int]) -> str:
    return f"masks of {mask[0]}x{mask[1]} for images of {size[0]}x{size[1]} (height x width)"


def _fit(size: tuple[int, int], mask: tuple[int, int], items: Sequence[Item]) -> str:
    """The fix for masks of another size, such as a crop."""
    (h, w), (y, x) = size, mask
    if (y, x) == (w, h):
        return "one of them is rotated: apply the EXIF orientation to both"
    if y >= h and x >= w and max(y / h, x / w) <= 1 + _LARGER:
        pairs = ((read_image(image), raw_mask(path).pixels) for image, path in _files(items[:_CROPPED]))
        return f"crop the masks, do not resize them: {_crop(size, alignment.best_crop(pairs))} fits the images best"
    if abs((y / h) / (x / w) - 1) <= _RATIO:
        return "export the masks at the size of the images, or reduce the images to the size of the masks"
    return "they belong to other images, or were cropped in another way: find the image of each mask"


def _files(items: Sequence[Item]) -> Iterator[tuple[Path, Path]]:
    """The files of the images and masks."""
    for item in items:
        assert isinstance(item, tuple), "only pairs of files have masks of another size"
        yield item[0], item[1]


def _crop(size: Sequence[int], place: Sequence[int]) -> str:
    (h, w), (top, left) = size, place
    return f"mask[{top}:{top + h}, {left}:{left + w}]"


def of_all(problems: Problems, found: Sequence["Examined"]) -> None:
    """Add the problems that are seen only in all domains together, in place."""
    _classes(problems, found)
    places = [(name, one.domain.name, split, print_) for one in found for name, split, print_ in one.prints]
    groups: dict[tuple[str, str], int] = {}
    group = [groups.setdefault((domain, split), len(groups)) for _, domain, split, _ in places]
    prints = [print_ for *_, print_ in places]
    for together in twins.same(prints):
        within = len({group[place] for place in together}) == 1
        _twins(problems, [places[place] for place in together], "the same image", within=within)
    for pair in twins.almost_same(prints, group):
        _twins(problems, [places[place] for place in pair], "almost the same image", within=False)


def _twins(problems: Problems, places: Sequence[tuple[str, str, str, twins.Print]], what: str, *, within: bool) -> None:
    where = " and ".join(dict.fromkeys(f"{domain} {split}" for _, domain, split, _ in places))
    names = [name for name, *_ in places]
    kind = "twice" if what.startswith("the") else "almost twice"
    level: Level = "note" if within else "warning"
    fix = "remove one of each pair" if within else "keep only one of them: otherwise training images are also measured"
    problems.add(level, kind, where, f"{names[0]} is {what} as {names[1]}", fix, " = ".join(names))


def _classes(problems: Problems, found: Sequence["Examined"]) -> None:
    """Add the classes without a pixel in all domains of a label space, or in some of them, in place."""
    spaces: dict[tuple[str, ...], list[Examined]] = {}
    for one in found:
        if not one.domain.dataset.drawn and one.pixels.any():
            spaces.setdefault(one.domain.dataset.label_space.classes, []).append(one)
    for classes, domains in spaces.items():
        lacking: dict[tuple[str, ...], list[str]] = {}
        for place, name in enumerate(classes):
            without = [
                one.domain.name for one in domains if not one.pixels[place] and name not in one.domain.dataset.never
            ]
            if without:
                lacking.setdefault(tuple(without), []).append(name)
        for names, absent in lacking.items():
            everywhere = len(names) == len(domains)
            shown = ", ".join(absent[:_SHOWN]) + (f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else "")
            problems.add(
                "warning" if everywhere else "note",
                "absent",
                ", ".join(names),
                f"no {'image' if domains[0].domain.dataset.image_level else 'pixel'} is labelled {shown}",
                "correct the masks or the label map, or remove the classes; they do not count in the score there",
                group=shown,
            )
