"""Transforms of an image together with its label, before they reach the network.

The geometry is drawn once and applied to both: images bilinear with antialias, masks nearest. Colour changes imitate
daylight, dusk and other cameras: brightness, contrast, saturation, hue, gamma, blur, loss of colour. They come after
the crop, where they cost less. All draws come from torch's global CPU generator, which the loader seeds per sample.

The operations are torchvision's (`torchvision.transforms.v2`). Masks are resized with `NEAREST_EXACT`: torchvision's
own choice for masks samples the upper left corner of each cell and shifts labels by half a pixel against the image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from hardy.errors import InputError
from hardy.types import IGNORE

__all__ = ["Evaluation", "PictureAugmentation", "SceneAugmentation", "Transform", "at_size", "evaluation", "training"]

Size = tuple[int, int]

_PADDING = (124.0, 116.0, 104.0)
"""The padding colour of an image that is smaller than the crop: ImageNet's mean, near zero after normalisation."""


@dataclass(frozen=True)
class SceneAugmentation:
    """Random scale, crop, flip and colours of an image with a mask.

    Attributes:
        size: (height, width) of the output.
        scale: range of the factor on the image's size, drawn uniformly. A smaller result is padded to ``size`` at the
            right and at the bottom; the mask is padded with 255.
        flip: probability of a left-right flip.
        photometric: strength of the colour changes, at least 0. 0 means none. 1 means brightness, contrast and
            saturation within +-60, 60 and 50 %, hue +-0.1, gamma 0.5 to 2, blur in 30 % and grey in 5 % of images.

    Raises:
        InputError: for a size, range, probability or strength out of range.
    """

    size: Size
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: float = 1.0

    def __post_init__(self) -> None:
        _check(self.size, self.scale, self.flip, self.photometric)

    def __call__(self, image: np.ndarray, label: np.ndarray) -> tuple[Tensor, Tensor]:
        """``image`` (H, W, 3) uint8 and ``label`` (H, W) uint8 as (3, h, w) float in [0, 1] and (h, w) int64."""
        pixels, mask = self._crop(_channels_first(image), torch.from_numpy(label))
        if _chance(self.flip):
            pixels, mask = pixels.flip(-1), mask.flip(-1)
        pixels = _floating(pixels)
        if self.photometric:
            pixels = F.adjust_gamma(pixels, 2 ** (self.photometric * _between(-1, 1)))
            pixels = self._colours(pixels).clamp(0, 1)
        return pixels.contiguous(), mask.long()

    def _crop(self, pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cut the window that becomes ``size`` at a random scale, resize it, and pad it if the image is too small."""
        factor = _between(*self.scale)
        starts, cuts, sizes = [], [], []
        for length, wanted in zip(pixels.shape[-2:], self.size, strict=True):
            window = max(1, round(wanted / factor))
            cut = min(length, window)
            starts.append(int(torch.randint(length - cut + 1, ())))
            cuts.append(cut)
            sizes.append(wanted if cut == window else min(wanted, max(1, round(cut * factor))))
        rows, columns = (slice(start, start + cut) for start, cut in zip(starts, cuts, strict=True))
        pixels = _resize_image(pixels[:, rows, columns], (sizes[0], sizes[1]))
        mask = _resize_mask(mask[rows, columns], (sizes[0], sizes[1]))
        margin = [0, 0, self.size[1] - sizes[1], self.size[0] - sizes[0]]
        if any(margin):
            pixels = F.pad(pixels, margin, fill=list(_PADDING))
            mask = F.pad(mask[None], margin, fill=IGNORE)[0]
        return pixels, mask

    @cached_property
    def _colours(self) -> v2.Transform:
        s = self.photometric
        jitter = v2.ColorJitter(brightness=0.6 * s, contrast=0.6 * s, saturation=0.5 * s, hue=min(0.5, 0.1 * s))
        blur = v2.RandomApply([v2.GaussianBlur(5, (0.15, 1.3))], p=min(1.0, 0.3 * s))
        return v2.Compose([jitter, blur, v2.RandomGrayscale(p=min(1.0, 0.05 * s))])


@dataclass(frozen=True)
class PictureAugmentation:
    """Random resized crop, flip and colours of an image with one class.

    Attributes:
        size: (height, width) of the output.
        scale: range of the share of the image's area that is kept, at most 1.
        flip: probability of a left-right flip.
        photometric: strength of the colour changes, at least 0. 0 means none. 1 means changes of brightness, contrast,
            saturation and hue by up to 0.3, and grey in 10 % of images.

    Raises:
        InputError: for a size, range, probability or strength out of range.
    """

    size: Size
    scale: tuple[float, float] = (0.7, 1.0)
    flip: float = 0.5
    photometric: float = 1.0

    def __post_init__(self) -> None:
        _check(self.size, self.scale, self.flip, self.photometric)
        if self.scale[1] > 1:
            raise InputError(f"scale {self.scale}: a crop keeps at most 1.0 of the area of an image")

    def __call__(self, image: np.ndarray, label: np.ndarray) -> tuple[Tensor, Tensor]:
        """``image`` (H, W, 3) uint8 and ``label`` () int64 as (3, h, w) float in [0, 1] and () int64."""
        pixels = _floating(self._geometry(_channels_first(image)))
        if self.photometric:
            pixels = self._colours(pixels).clamp(0, 1)
        return pixels.contiguous(), torch.as_tensor(label, dtype=torch.int64)

    @cached_property
    def _geometry(self) -> v2.Transform:
        crop = v2.RandomResizedCrop(self.size, scale=self.scale, antialias=True)
        return v2.Compose([crop, v2.RandomHorizontalFlip(self.flip)])

    @cached_property
    def _colours(self) -> v2.Transform:
        s = 0.3 * self.photometric
        return v2.Compose([v2.ColorJitter(s, s, s, min(0.5, s)), v2.RandomGrayscale(min(1.0, 0.1 * self.photometric))])


@dataclass(frozen=True)
class Evaluation:
    """No random changes: the image is resized to ``size``; the label keeps its own size.

    Attributes:
        size: (height, width), or None, which does not resize.
    """

    size: Size | None = None

    def __call__(self, image: np.ndarray, label: np.ndarray) -> tuple[Tensor, Tensor]:
        """``image`` (H, W, 3) uint8 and ``label`` as (3, h, w) float in [0, 1] and (H, W) or () int64."""
        pixels = _channels_first(image)
        if self.size is not None:
            pixels = _resize_image(pixels, self.size)
        return _floating(pixels).contiguous(), torch.as_tensor(label).long()


Transform = Callable[[np.ndarray, np.ndarray], tuple[Tensor, Tensor]]
"""``(image (H, W, 3) uint8, label) -> (image (3, h, w) float in [0, 1], label int64)``; workers need to pickle it."""


def training(
    size: Size,
    *,
    image_level: bool = False,
    scale: tuple[float, float] | None = None,
    flip: float = 0.5,
    photometric: float = 1.0,
) -> SceneAugmentation | PictureAugmentation:
    """The augmentation of images with masks, or of images with one class; ``scale`` None means its default."""
    kind = PictureAugmentation if image_level else SceneAugmentation
    return kind(size, kind.scale if scale is None else scale, flip, photometric)


def evaluation(size: Size | None = None) -> Evaluation:
    """The transform of evaluation; see `Evaluation`."""
    return Evaluation(size)


def at_size(image: np.ndarray, label: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """``image`` (H, W, 3) uint8 and a mask ``label`` (H, W), resized to ``size``; a () label does not change."""
    pixels = _resize_image(_channels_first(image), size)
    resized = label if label.ndim == 0 else _resize_mask(torch.from_numpy(label), size).numpy()
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), resized


def _channels_first(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


def _floating(pixels: Tensor) -> Tensor:
    scaled: Tensor = F.to_dtype(pixels, torch.float32, scale=True)
    return scaled


def _resize_image(pixels: Tensor, size: Size) -> Tensor:
    resized: Tensor = F.resize(pixels, list(size), antialias=True)
    return resized


def _resize_mask(mask: Tensor, size: Size) -> Tensor:
    resized: Tensor = F.resize(mask[None], list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)
    return resized[0]


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return not math.isclose(probability, 0) and float(torch.rand(())) < probability


def _check(size: Size, scale: tuple[float, float], flip: float, photometric: float) -> None:
    if len(size) != 2 or min(size) < 1:
        raise InputError(f"size {size} is not (height, width) in pixels")
    if not 0 < scale[0] <= scale[1]:
        raise InputError(f"scale {scale} is not a range of positive factors (low, high)")
    if not 0 <= flip <= 1:
        raise InputError(f"flip {flip} is not a probability")
    if photometric < 0:
        raise InputError(f"photometric {photometric} is negative; 0 means no colour changes")
