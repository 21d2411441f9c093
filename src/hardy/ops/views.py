"""Views of images for self-training: photometric (colours, blur, noise) and geometric (mirrored, resized).

A photometric view does not move pixels. A geometric view, `View`, is undone on its logits, so that the logits of
several views of an image can be compared and averaged pixel by pixel. All draws are from torch's CPU generator.

Source: Wang, Fink, Van Gool and Dai, "Continual test-time domain adaptation", CVPR 2022, section 3.2, and its released
code, for `COTTA`, `CLASSIFICATION`, `moved` and `classification_view`. The ranges in `Colours` are those of Chen,
Kornblith, Norouzi and Hinton, "A simple framework for contrastive learning of visual representations", ICML 2020,
appendix A, at half strength.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as vision

__all__ = [
    "CLASSIFICATION",
    "COTTA",
    "LIGHT",
    "Colours",
    "View",
    "blurred",
    "classification_view",
    "draw_views",
    "jittered",
    "mean_probabilities",
    "moved",
    "noisy",
    "probabilities",
    "recoloured",
]

Range = tuple[float, float]


@dataclass(frozen=True)
class View:
    """A geometric view: the images resized by ``scale`` (bilinear), and mirrored left to right if ``flip``."""

    scale: float = 1.0
    flip: bool = False

    def of(self, images: Tensor, least: int = 1) -> Tensor:
        """The view of ``images`` (B, 3, H, W).

        No side becomes smaller than ``least`` pixels, or smaller than it is now if it is already below ``least``."""
        height, width = (max(min(least, side), round(self.scale * side)) for side in images.shape[-2:])
        seen = _resized(images, (height, width))
        return seen.flip(-1) if self.flip else seen

    def undo(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """The view's ``logits`` (B, K, h, w) mapped back to images of ``size`` (H, W); (B, K) is returned unchanged."""
        if logits.ndim < 4:
            return logits
        return _resized(logits.flip(-1) if self.flip else logits, (size[0], size[1]))


COTTA = tuple(View(scale, flip) for scale in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0) for flip in (False, True))
"""The 14 views of the teacher of CoTTA; the fifth is the image itself."""

LIGHT = (View(), View(flip=True))
"""The image and its mirror image: two views, two forward passes."""


def draw_views(count: int, scales: Sequence[float] = (0.75, 1.0, 1.25)) -> list[View]:
    """``count`` views, each with a scale drawn from ``scales`` and mirrored with probability 1/2."""
    chosen = torch.randint(len(scales), (count,)).tolist()
    flips = (torch.rand(count) < 0.5).tolist()
    return [View(scales[scale], flip) for scale, flip in zip(chosen, flips, strict=True)]


def probabilities(logits: Tensor) -> Tensor:
    """The softmax (B, K, ...) of ``logits`` (B, K, ...), in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


def mean_probabilities(
    forward: Callable[[Tensor], Tensor], images: Tensor, views: Iterable[View], least: int = 1
) -> Tensor:
    """The mean over ``views`` of the softmax (B, K, H, W), or (B, K), with each view's geometry undone.

    Args:
        forward: a function from images to logits.
        images: (B, 3, H, W); they are not changed.
        views: at least one; only one is kept in memory at a time.
        least: the smallest side that a view may have, as in `View.of`.
    """
    total, count = None, 0
    for view in views:
        seen = probabilities(view.undo(forward(view.of(images, least)), images.shape[-2:]))
        total, count = seen if total is None else total + seen, count + 1
    assert total is not None, "there is at least one view"
    return total / count


@dataclass(frozen=True)
class Colours:
    """The ranges (low, high) that `jittered` draws from.

    They are for the factors of brightness, contrast and saturation, the hue in turns, the exponent gamma, and sigma,
    the standard deviation of the blur in pixels. ``noise`` is the standard deviation of the noise, a number."""

    brightness: Range = (0.6, 1.4)
    contrast: Range = (0.6, 1.4)
    saturation: Range = (0.6, 1.4)
    hue: Range = (-0.1, 0.1)
    gamma: Range = (0.7, 1.3)
    sigma: Range = (0.15, 1.3)
    noise: float = 0.005


USUAL = Colours()
CLASSIFICATION = Colours(contrast=(0.7, 1.3), saturation=(0.5, 1.5), hue=(-0.06, 0.06), sigma=(0.001, 0.5))
"""The ranges of CoTTA for image-level classes."""


def jittered(images: Tensor, ranges: Colours = USUAL) -> Tensor:
    """A photometric view of ``images`` (B, 3, H, W) in [0, 1], with the same range: `recoloured`, `blurred`, `noisy`.

    Each image has its own draws."""
    return noisy(blurred(recoloured(images, ranges), ranges.sigma), ranges.noise)


def recoloured(images: Tensor, ranges: Colours = USUAL) -> Tensor:
    """``images`` (B, 3, H, W) in [0, 1] with random brightness, contrast, saturation, hue and gamma.

    The order of these changes is random for each image."""
    changes = (
        (vision.adjust_brightness, ranges.brightness),
        (vision.adjust_contrast, ranges.contrast),
        (vision.adjust_saturation, ranges.saturation),
        (vision.adjust_hue, ranges.hue),
        (vision.adjust_gamma, ranges.gamma),
    )
    made = []
    for image in images:
        values = [_drawn(limits) for _, limits in changes]
        for index in torch.randperm(len(changes)).tolist():
            image = changes[index][0](image, values[index])
        made.append(image)
    return torch.stack(made)


def blurred(images: Tensor, sigma: Range) -> Tensor:
    """``images`` (B, 3, H, W) blurred with a Gaussian of 5 x 5 pixels (smaller for tiny images).

    Its standard deviation is drawn from ``sigma``, above 0, for each image."""
    kernel = min(5, 2 * min(images.shape[-2:]) - 1)
    return torch.stack([vision.gaussian_blur(image, [kernel, kernel], [_drawn(sigma)] * 2) for image in images])


def noisy(images: Tensor, deviation: float) -> Tensor:
    """``images`` plus Gaussian noise with the standard deviation ``deviation``, clamped to [0, 1]."""
    return (images + deviation * torch.randn(images.shape).to(images)).clamp(0, 1)


def moved(images: Tensor, degrees: float = 15.0, shift: float = 0.125, scale: Range = (0.9, 1.1)) -> Tensor:
    """``images`` (B, 3, H, W), each rotated about its centre, scaled and shifted by its own random draws.

    Outside of the image, the border is repeated.

    Args:
        images: the images; they are not changed.
        degrees: the largest rotation, in either direction.
        shift: the largest shift, as a share of each side. The default 1/8 equals 1/16 of images padded to twice their
            sides, as in the released code.
        scale: the range of the factor.
    """
    height, width = images.shape[-2:]
    draws = torch.rand(4, len(images))
    angle = math.radians(degrees) * (2 * draws[0] - 1)
    factor = scale[0] + (scale[1] - scale[0]) * draws[1]
    cosine, sine = angle.cos() / factor, angle.sin() / factor
    aspect = height / width
    across, down = 2 * shift * (2 * draws[2:] - 1)
    rows = (
        (cosine, sine * aspect, -(cosine * across + sine * aspect * down)),
        (-sine / aspect, cosine, sine / aspect * across - cosine * down),
    )
    matrix = torch.stack([torch.stack(row, 1) for row in rows], 1).to(images)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def classification_view(images: Tensor) -> Tensor:
    """CoTTA's view of ``images`` (B, 3, H, W) in [0, 1] for image-level classes: `recoloured`, `moved`, `blurred`,
    mirrored with probability 1/2, `noisy`; each image has its own draws."""
    seen = blurred(moved(recoloured(images, CLASSIFICATION)), CLASSIFICATION.sigma)
    mirrored = (torch.rand(len(seen)) < 0.5).to(seen.device)
    return noisy(torch.where(mirrored.view(-1, 1, 1, 1), seen.flip(-1), seen), CLASSIFICATION.noise)


def _drawn(limits: Range) -> float:
    return limits[0] + (limits[1] - limits[0]) * float(torch.rand(()))


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
