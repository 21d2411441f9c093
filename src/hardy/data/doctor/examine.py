"""The data doctor: one pass over images and labels that finds all problems, not only the first, and their fixes."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hardy.data.base import Domain, Item
from hardy.data.check import DRAWN
from hardy.data.doctor import diagnosis
from hardy.data.doctor.looking import Seen, look
from hardy.data.doctor.problems import Problems
from hardy.data.doctor.twins import Print
from hardy.types import IGNORE

__all__ = ["Checked", "Examined", "examine"]

_CHUNK = 256


@dataclass
class Examined:
    """The content of one domain.

    Attributes:
        domain: the domain.
        images: split -> number of readable images.
        masks: split -> number of readable labels.
        sizes: (height, width) -> number of images.
        pixels: (256,) int64 pixels (or images) of each class of the domain's own label space; ignored ones at 255.
        cut: (image size, mask size) -> items whose masks do not have the size of the image.
        foreign: id or colour outside of the label map -> number of pixels.
        scores: the sum of the scores of `hardy.data.doctor.alignment`, in a list of one array; empty without scores.
        prints: (name, split, print) of each image.
    """

    domain: Domain
    images: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    cut: dict[tuple[tuple[int, int], tuple[int, int]], list[Item]] = field(default_factory=dict)
    foreign: Counter[str] = field(default_factory=Counter)
    scores: list[np.ndarray] = field(default_factory=list)
    prints: list[tuple[str, str, Print]] = field(default_factory=list)

    def add(self, item: Item, split: str, seen: Seen) -> None:
        """Count one image."""
        self.pixels += seen.pixels
        self.masks[split] += bool(seen.pixels.any())
        if seen.size is not None:
            self.images[split] += 1
            self.sizes[seen.size] += 1
            if seen.mask_size not in (None, seen.size):
                assert seen.mask_size is not None
                self.cut.setdefault((seen.size, seen.mask_size), []).append(item)
        if seen.print is not None:
            self.prints.append((seen.name, split, seen.print))
        if seen.scores is not None:
            self.scores[:] = [seen.scores + (self.scores[0] if self.scores else 0)]
        self.foreign.update(seen.foreign)

    def to_json(self) -> dict[str, Any]:
        """The counts as plain values."""
        label_space = self.domain.dataset.label_space
        return {
            "domain": self.domain.name,
            "label_space": label_space.name,
            "splits": {
                name: {"listed": len(items), "images": self.images[name], "labels": self.masks[name]}
                for name, items in self.domain.splits.items()
            },
            "sizes": {f"{height}x{width}": count for (height, width), count in self.sizes.most_common()},
            "pixels": dict(zip(label_space.classes, self.pixels[: len(label_space)].tolist(), strict=True)),
            "ignored": int(self.pixels[IGNORE]),
        }


@dataclass(frozen=True)
class Checked:
    """The result of `examine`.

    Attributes:
        domains: the content of each domain.
        problems: all problems, mistakes first.
    """

    domains: list[Examined]
    problems: Problems

    @property
    def mistakes(self) -> int:
        """The number of problems that are mistakes."""
        return sum(one.level == "mistake" for one in self.problems)

    def to_json(self) -> dict[str, Any]:
        """Domains and problems as plain values."""
        return {
            "domains": [one.to_json() for one in self.domains],
            "problems": [one.to_json() for one in self.problems],
        }


def examine(
    domains: Sequence[Domain],
    unpaired: Sequence[Path] = (),
    over: Callable[[Sequence[Item], str], Iterable[Item]] = lambda items, _: items,
) -> Checked:
    """Read every image and label of ``domains`` once, with one thread per core.

    Of a dataset that draws its images only the first few of each split are read.

    Args:
        domains: the domains to read.
        unpaired: images without masks and masks without images.
        over: iterates over the items of the domain with the given name, for example with a progress bar.
    """
    problems = Problems()
    for path in unpaired:
        problems.add(
            "mistake",
            "unpaired",
            "all domains",
            f"{path}: it has no mask or no image",
            "add its mask or image, or remove it",
            str(path),
        )
    found = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for domain in domains:
            one = Examined(domain)
            listed = [(item, split) for split, items in domain.splits.items() for item in _read(domain, items)]
            places = iter(over([item for item, _ in listed], domain.name))
            for start in range(0, len(listed), _CHUNK):
                chunk = listed[start : start + _CHUNK]
                looks = pool.map(partial(look, domain.dataset), [item for item, _ in chunk])
                for (item, split), seen in zip(chunk, looks, strict=True):
                    next(places)
                    one.add(item, split, seen)
                    diagnosis.of_image(problems, domain, seen)
            next(places, None)
            diagnosis.of_domain(problems, one)
            found.append(one)
    diagnosis.of_all(problems, found)
    return Checked(found, problems)


def _read(domain: Domain, items: Sequence[Item]) -> Sequence[Item]:
    return items[:DRAWN] if domain.dataset.drawn else items
