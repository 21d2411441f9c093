"""Another data set with corrupted images: noise, blur, contrast, weather or compression, at a strength of 1 to 5.

Every domain of the other data set gives one domain for each corruption and strength, such as
``corrupted/0001TP-gaussian_noise-3``; labels do not change. Domains are sorted by strength, then by corruption, then as
in the other data set. The corruptions are those of the package ``imagecorruptions``, with the paper's strengths for
ImageNet. The seed of an image is computed from ``seed``, the name of its file and folder, corruption and strength, so
the image is the same each time it is read. ``glass_blur`` and ``impulse_noise`` are left out, because their random
generators cannot be seeded.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
2019; for images of any size: Michaelis et al., "Benchmarking robustness in object detection: autonomous driving when
winter is coming", arXiv:1907.07484, 2019 (package ``imagecorruptions-imaug``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hardy.data.base import Dataset, Item
from hardy.errors import InputError, nearest, within
from hardy.registry import DATASETS
from hardy.seed import key

__all__ = ["KINDS", "Corrupted"]

KINDS = (
    "gaussian_noise",
    "shot_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "spatter",
    "brightness",
    "contrast",
    "saturate",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The corruptions: noise, blur, weather, light and colour, digital."""

_LEAST = 32
"""The smallest side of an image in pixels that the package supports."""


class Corrupted(Dataset):
    """The corrupted images of the data set ``of``, with its labels.

    Args:
        root: the folder in which ``of`` is searched.
        of: a name of ``hardy list dataset``.
        options: of that data set.
        only: the domains of ``of`` to use; if empty, all of them.
        kinds: corruptions from `KINDS`.
        strengths: from 1, hardly visible, to 5.
        seed: of all random draws.

    Raises:
        InputError: for an unknown corruption, domain or option, a strength out of range, empty ``kinds`` or
            ``strengths``, ``of: corrupted``, and what the data set ``of`` raises.
    """

    drawn = True

    def __init__(
        self,
        root: Path | str,
        *,
        of: str = "camvid",
        options: Mapping[str, Any] = {},
        only: Sequence[str] = (),
        kinds: Sequence[str] = ("gaussian_noise", "gaussian_blur", "contrast", "jpeg_compression", "brightness"),
        strengths: Sequence[int] = (2, 4),
        seed: int = 0,
    ) -> None:
        for kind in kinds:
            if kind not in KINDS:
                raise InputError(f"Corrupted.kinds: there is no corruption {kind!r}{nearest(kind, KINDS)}")
        for strength in strengths:
            within("Corrupted.strengths", strength, 1, 5)
        if not kinds or not strengths:
            raise InputError("Corrupted: name at least one corruption in kinds and one number in strengths")
        if of == "corrupted":
            raise InputError("Corrupted.of: 'corrupted' is this data set itself; name another data set")
        self.of: Dataset = DATASETS.build(of, {"root": Path(root)}, **options)
        self.label_space, self.image_level, self.never, self.void = (
            getattr(self.of, name) for name in ("label_space", "image_level", "never", "void")
        )
        index = self.of.index()
        for name in only:
            if name not in index:
                raise InputError(f"Corrupted.only: {of} has no domain {name!r}{nearest(name, index)}")
        self._index = {name: splits for name, splits in index.items() if not only or name in only}
        self.kinds, self.strengths, self.seed = tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(strengths)), seed

    def index(self) -> Mapping[str, Mapping[str, Sequence[Item]]]:
        """``DOMAIN-KIND-STRENGTH`` -> split -> (item of the other data set, kind, strength)."""
        return {
            f"{domain}-{kind}-{strength}": {
                split: [(item, kind, strength) for item in items] for split, items in splits.items()
            }
            for strength, kind, (domain, splits) in product(self.strengths, self.kinds, self._index.items())
        }

    def read(self, item: Item) -> tuple[np.ndarray, np.ndarray]:
        """The corrupted image and its label; see `Dataset.read`.

        Raises:
            InputError: also if the package is not installed, or for an image with a side below 32 pixels.
        """
        inner, kind, strength = _parts(item)
        image, label = self.of.read(inner)
        if min(image.shape[:2]) < _LEAST:
            height, width = image.shape[:2]
            raise InputError(f"{self.name_of(item)}: {height}x{width} pixels; corruptions need {_LEAST} on each side")
        corrupt = _package()
        name = Path(self.of.name_of(inner)).parts[-2:]  # not the folders above: they differ between machines
        with _drawing(key(self.seed, "corrupted", *name, kind, strength)):
            return np.array(corrupt(image, severity=strength, corruption_name=kind)), label

    def read_label(self, item: Item) -> np.ndarray:
        """The label of the original image."""
        return self.of.read_label(_parts(item)[0])

    def ends_whole(self, item: Item) -> bool:
        """See `Dataset.ends_whole`; for the original image."""
        return self.of.ends_whole(_parts(item)[0])

    def name_of(self, item: Item) -> str:
        """The image's name, with corruption and strength."""
        inner, kind, strength = _parts(item)
        return f"{self.of.name_of(inner)} ({kind} {strength})"


def _parts(item: Item) -> tuple[Item, str, int]:
    assert isinstance(item, tuple)
    inner, kind, strength = item
    return inner, kind, strength


def _package() -> Callable[..., np.ndarray]:
    try:
        corrupt: Callable[..., np.ndarray] = import_module("imagecorruptions").corrupt
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'hardy[corrupt]'") from None
    return corrupt


@contextmanager
def _drawing(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, which the package uses; restore its state after the block."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
