"""Procedural perspective street scenes in nine domains, with exact masks; needs no files.

A street is generated from random numbers: a layout with carriageway, pavements, houses, walls, fences, gardens and side
streets; vehicles, people, riders, trees, lamps, signals and signs; and a camera. All domains use the same generator, so
their label statistics are similar (except for `city_b`, another town). They differ in light, weather and camera:

- ``sim``: flat shading, no shadow, no texture, no noise
- ``day``: texture, sun and cast shadows, clouds, sensor noise
- ``dusk``: low warm sun, dim sky, lit windows
- ``night``: street lamps, headlights, rear lamps, noise
- ``fog``: Koschmieder's law over the scene's true distances
- ``rain``: overcast, a wet road that mirrors the street, streaks
- ``snow``: ground, roofs and cars covered, flakes
- ``city_b``: gabled brick houses, other paints, a high camera that looks down
- ``camera_b``: barrel distortion (of the mask as well), other colour response, noise, JPEG

Source: Hardy's own. Classes are the train-ids of M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene
Understanding", CVPR 2016, without train and motorcycle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hardy.data.base import Dataset, Item
from hardy.data.disk_cache import DiskCache
from hardy.data.label_spaces import find_label_space
from hardy.data.streets.domains import DOMAINS
from hardy.data.streets.photograph import photograph
from hardy.data.streets.version import version
from hardy.errors import InputError, within
from hardy.files import expanded

__all__ = ["Streets"]

SMALLEST = 16
"""The smallest side of an image in pixels."""

LARGEST = 8192
"""The largest side of an image in pixels."""

MOST = 100_000
"""The largest number of images of a domain in a split."""


class Streets(Dataset):
    """Procedural street scenes; image and mask depend only on size, ``seed``, domain and number, bit for bit.

    Args:
        root: not used; nothing is read from disk.
        size: (height, width) of the images, at least 16 x 16.
        train: number of training images per domain.
        val: number of validation images per domain.
        test: number of test images per domain.
        seed: another seed is another data set.
        cache_folder: the folder that keeps images and masks after they are drawn, in a sub-folder. The bits are the
            same, and reading an image of 96 x 192 pixels is much faster than drawing it.
        cache_mb: the largest size of all files in ``cache_folder``, in megabytes.

    Raises:
        InputError: for a side below 16 or above 8192 pixels, a count below 0 or above 100,000, or a cache below 1
            megabyte.
    """

    drawn = True

    def __init__(
        self,
        root: Path | str = ".",
        *,
        size: tuple[int, int] = (256, 512),
        train: int = 200,
        val: int = 20,
        test: int = 50,
        seed: int = 0,
        cache_folder: str | None = None,
        cache_mb: int = 2000,
    ) -> None:
        height, width = size
        if min(height, width) < SMALLEST:
            raise InputError(f"streets: size is {height} x {width}; each side needs at least {SMALLEST} pixels")
        if max(height, width) > LARGEST:
            raise InputError(f"streets: size is {height} x {width}; each side has at most {LARGEST} pixels")
        counts = {"train": train, "val": val, "test": test}
        for name, count in counts.items():
            if count < 0:
                raise InputError(f"streets: {name} is {count}; a number of images is 0 or more")
            if count > MOST:
                raise InputError(f"streets: {name} is {count}; a domain has at most {MOST:,} images of a split")
        self.label_space = find_label_space("cityscapes19")
        self.size = (height, width)
        self.counts = counts
        self.seed = seed
        within("streets: cache_mb", cache_mb, 1)
        self._cache: DiskCache | None = None
        if cache_folder:
            settings = f"{height}x{width}-seed{seed}"
            self._cache = DiskCache(expanded(cache_folder), version(), settings, most=cache_mb * 10**6)

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """The nine domains. An item is (domain, number); the numbering continues from one split to the next."""
        ends = np.cumsum([0, *self.counts.values()]).tolist()
        spans = {name: range(ends[k], ends[k + 1]) for k, name in enumerate(self.counts)}
        return {
            domain: {split: tuple((domain, number) for number in span) for split, span in spans.items()}
            for domain in DOMAINS
        }

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 of ``item``, a pair (domain, number).

        Raises:
            InputError: for an unknown domain, or a cache that cannot be written.
        """
        assert isinstance(item, tuple)
        domain, number = item
        if domain not in DOMAINS:
            raise InputError(f"streets: there is no domain {domain!r}; there are: {', '.join(DOMAINS)}")
        name = f"{domain}/{int(number)}"
        if self._cache and (kept := self._cache.read(name)):
            return kept
        drawn = photograph(DOMAINS[domain], self.size, self.seed, ("streets", domain, int(number)))
        if self._cache:
            self._cache.write(name, drawn)
        return drawn

    def name_of(self, item: Item) -> str:
        """``domain/number``."""
        assert isinstance(item, tuple)
        return f"{item[0]}/{item[1]}"
