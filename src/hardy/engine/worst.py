"""The worst images of a domain: those with the lowest mean IoU of their own, small, with truth and prediction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from PIL import Image
from torch import Tensor

from hardy.data.label_spaces import LabelSpace
from hardy.pictures import Picture

__all__ = ["Finder"]

SIDE = 512
"""The longer side of a picture in pixels, at most."""


@dataclass
class Finder:
    """Keeps the ``most`` worst images of those that it is shown.

    Attributes:
        label_space: the space of truth and prediction.
        most: how many are kept.
    """

    label_space: LabelSpace
    most: int
    _found: list[tuple[float, int, tuple[np.ndarray, np.ndarray, np.ndarray]]] = field(default_factory=list)
    _shown: int = 0

    def show(self, image: Tensor, truth: Tensor, prediction: Tensor, score: float) -> None:
        """Keep one image if it is among the worst so far.

        Args:
            image: (3, h, w) in [0, 1].
            truth: (H, W) class ids, 255 where nothing is labelled.
            prediction: (H, W) class ids.
            score: its own mean IoU; an image without a labelled pixel has NaN and is left out.
        """
        place, self._shown = self._shown, self._shown + 1
        if not score <= (self._found[-1][0] if len(self._found) == self.most else 1.0):
            return
        pixels = (image.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
        parts = (pixels, truth.byte().cpu().numpy(), prediction.byte().cpu().numpy())
        self._found = sorted([*self._found, (score, place, parts)], key=lambda one: one[:2])[: self.most]

    def pictures(self, names: Sequence[str]) -> list[Picture]:
        """The images kept, the worst first.

        Args:
            names: of all images in the order in which they were shown.
        """
        return [Picture(names[place], score, self._files(*parts)) for score, place, parts in self._found]

    def _files(self, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> dict[str, bytes]:
        size = _small(truth.shape[1], truth.shape[0])
        photo, packed = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), BytesIO()
        photo.save(packed, "JPEG", quality=85)
        masks = {"truth": truth, "prediction": prediction}
        return {"image": packed.getvalue(), **{name: self._mask(ids, size) for name, ids in masks.items()}}

    def _mask(self, ids: np.ndarray, size: tuple[int, int]) -> bytes:
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self.label_space)] = self.label_space.colours
        mask, packed = Image.fromarray(ids).resize(size, Image.Resampling.NEAREST), BytesIO()
        mask.putpalette(palette.flatten().tolist())
        mask.save(packed, "PNG", optimize=True)
        return packed.getvalue()


def _small(width: int, height: int) -> tuple[int, int]:
    """(width, height) with a longer side of at most `SIDE`."""
    factor = min(1.0, SIDE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))
