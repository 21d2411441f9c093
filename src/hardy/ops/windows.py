"""Inference through windows, flips and scales: averages of a map ``images -> logits`` over views of the images.

Every function takes such a map and images (B, 3, H, W) and returns logits (B, K, H, W) of the full image, so they
nest: `views` puts windows inside flips inside scales. Image-level logits (B, K) have no spatial axes: nothing is
mirrored or resized back, and there are no windows. Windows tile exactly: they start a stride apart, the last one
ends at the border, nothing is padded, and each pixel is the mean over the windows that cover it.

The mean is one of logits, or with ``average="probabilities"`` the logarithm of the mean of the softmax, which is
again a map of logits: its softmax is that mean.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import EllipsisType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.errors import InputError

__all__ = ["Average", "Forward", "Region", "bands", "flipped", "scaled", "sliding", "starts", "strides", "views"]

Forward = Callable[[Tensor], Tensor]
"""``images (B, 3, H, W) -> logits (B, K, H, W)``."""

Region = tuple[EllipsisType, slice, slice]
"""A part of images: ``...``, rows, columns."""

Average = Literal["logits", "probabilities"]
"""What is averaged over the views."""


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side of ``length`` pixels begin: 0, stride, ... and last ``length - window``.

    Raises:
        InputError: for a stride that is not in [1, window]: pixels between two windows would be left out.
    """
    if not 1 <= stride <= window:
        raise InputError(f"window {window} with stride {stride}: the stride must be from 1 to the window")
    if window >= length:
        return [0]
    return [*range(0, length - window, stride), length - window]


def strides(window: Sequence[int]) -> tuple[int, ...]:
    """The default stride: two thirds of ``window``, at least a pixel."""
    return tuple(max(1, side * 2 // 3) for side in window)


def sliding(
    forward: Forward,
    images: Tensor,
    window: Sequence[int],
    stride: Sequence[int],
    average: Average = "logits",
) -> Tensor:
    """The mean over windows of ``window`` (h, w) pixels that start ``stride`` (h, w) pixels apart.

    A side of the image that is shorter than the window is one window.

    Raises:
        InputError: for a stride larger than its window, or not positive; for image-level logits.
    """
    height, width = images.shape[-2:]
    found: Tensor | None = None
    for top, rows in bands(forward, images.__getitem__, (height, width), window, stride, average):
        if found is None:
            found = rows.new_empty(*rows.shape[:2], height, width)
        found[..., top : top + rows.shape[-2], :] = rows
    assert found is not None, "there is always a first window"
    return found


def bands(
    forward: Forward,
    take: Callable[[Region], Tensor],
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    average: Average = "logits",
) -> Iterator[tuple[int, Tensor]]:
    """The logits of `sliding` in bands from top to bottom, each as soon as no other window covers it.

    Only the rows of one window are kept, so that memory does not grow with the height of the images.

    Args:
        forward: images to logits.
        take: ``(..., rows, columns)``, two slices, to that part (B, 3, h, w) of the images.
        size: (height, width) of the images.
        window: (height, width) of the windows.
        stride: (height, width) between windows.
        average: what is averaged.

    Yields:
        the place of a band's first row, and its logits (B, K, h, W).

    Raises:
        InputError: for a stride larger than its window, or not positive.
    """
    height, width = size
    tops, lefts = starts(height, window[0], stride[0]), starts(width, window[1], stride[1])
    total: Tensor | None = None
    covered: Tensor | None = None
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        rows = min(window[0], height - top)
        for left in lefts:
            seen = _into(forward(take((..., slice(top, top + rows), slice(left, left + window[1])))), average)
            if seen.ndim != 4:
                raise InputError("window: the network predicts one class per image; leave the window out")
            if left == 0:  # what the windows above have left, and empty rows below it
                total = _extended(total, seen, rows, width)
                covered = _extended(covered, seen[:1, :1], rows, width)
            assert total is not None, "the first window of a row begins at 0"
            assert covered is not None, "the same"
            total[..., left : left + window[1]] += seen
            covered[..., left : left + window[1]] += 1
        assert total is not None, "there is always a first window"
        assert covered is not None, "the same"
        done = following - top
        left_over = total[..., done:, :].clone(), covered[..., done:, :].clone()
        yield top, _out_of(total[..., :done, :].div_(covered[..., :done, :]), average)
        total, covered = left_over


def _extended(kept: Tensor | None, like: Tensor, rows: int, width: int) -> Tensor:
    """``kept`` (B, C, h, W) with rows of zeros below it up to ``rows``."""
    made = like.new_zeros(*like.shape[:2], rows, width)
    if kept is not None:
        made[..., : kept.shape[-2], :] = kept
    return made


def flipped(forward: Forward, images: Tensor, average: Average = "logits") -> Tensor:
    """The mean over the images and their mirror images, left to right; the latter's logits are mirrored back."""
    mirrored = forward(images.flip(-1))
    return _mean((forward(images), mirrored.flip(-1) if mirrored.ndim == 4 else mirrored), average)


def scaled(forward: Forward, images: Tensor, scales: Sequence[float], average: Average = "logits") -> Tensor:
    """The mean over the images resized by each of ``scales`` (bilinear), logits resized back.

    Raises:
        InputError: without scales, or for one that is not positive.
    """
    if not scales or min(scales) <= 0:
        raise InputError(f"scales {list(scales)}: give at least one, all above 0")
    height, width = images.shape[-2:]
    sizes = [(max(1, round(scale * height)), max(1, round(scale * width))) for scale in scales]
    return _mean((_resize(forward(_resize(images, size)), (height, width)) for size in sizes), average)


def views(
    forward: Forward,
    *,
    window: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    average: Average = "logits",
) -> Forward:
    """``forward`` seen through windows, flips and scales, in this order from the inside; itself without any.

    Args:
        forward: images to logits.
        window: (height, width) of the windows; None for no windows.
        stride: (height, width) between windows; two thirds of the window when None.
        flip: average with the mirror image.
        scales: factors on the image's size.
        average: what is averaged.
    """
    seen = forward
    if window is not None:
        steps = tuple(stride) if stride is not None else strides(window)
        seen = partial(sliding, seen, window=tuple(window), stride=steps, average=average)
    if flip:
        seen = partial(flipped, seen, average=average)
    if tuple(scales) != (1.0,):
        seen = partial(scaled, seen, scales=tuple(scales), average=average)
    return seen


def _mean(seen: Iterable[Tensor], average: Average) -> Tensor:
    """One view at a time is kept, not all of them: full-size logits are large."""
    total, count = None, 0
    for view in seen:
        opened = _into(view, average)
        total, count = opened if total is None else total + opened, count + 1
    assert total is not None, "there is always a first view"
    return _out_of(total / count, average)


def _into(logits: Tensor, average: Average) -> Tensor:
    return logits.float().softmax(1) if average == "probabilities" else logits.float()


def _out_of(mean: Tensor, average: Average) -> Tensor:
    return mean.clamp_min(torch.finfo(mean.dtype).tiny).log() if average == "probabilities" else mean


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.ndim < 4 or tuple(x.shape[-2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
