"""Inference through windows, flips and scales: averages of a map ``images -> logits`` over views of the images.

Every function takes such a map and images (B, 3, H, W) and returns logits (B, K, H, W) of the full image, so they can
be nested: `views` puts windows inside flips inside scales. Image-level logits (B, K) have no spatial axes, so they are
not mirrored or resized back, and cannot be computed in windows. Windows start one stride apart, and the last one ends
at the border. Nothing is padded, and each pixel is the mean over the windows that cover it.

Logits are averaged. With ``average="probabilities"`` the result is the logarithm of the mean softmax, which can be used
as logits: its softmax is that mean.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import EllipsisType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from hardy.errors import InputError

__all__ = ["Average", "Forward", "Region", "flipped", "scaled", "sliding", "starts", "strides", "tiles", "views"]

Forward = Callable[[Tensor], Tensor]
"""``images (B, 3, H, W) -> logits (B, K, H, W)``."""

Region = tuple[EllipsisType, slice, slice]
"""A part of images: ``...``, rows, columns."""

Average = Literal["logits", "probabilities"]
"""The quantity that is averaged over the views."""


def starts(length: int, window: int, stride: int) -> list[int]:
    """The starts of the windows along a side of ``length`` pixels: 0, stride, ... and finally ``length - window``.

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
    for top, left, part in tiles(forward, images.__getitem__, (height, width), window, stride, average):
        if found is None:
            found = part.new_empty(*part.shape[:2], height, width)
        found[..., top : top + part.shape[-2], left : left + part.shape[-1]] = part
    assert found is not None, "there is always a first window"
    return found


def tiles(
    forward: Forward,
    take: Callable[[Region], Tensor],
    size: Sequence[int],
    window: Sequence[int],
    stride: Sequence[int],
    average: Average = "logits",
) -> Iterator[tuple[int, int, Tensor]]:
    """The logits of `sliding` in parts, by rows of windows; a part is yielded as soon as no other window covers it.

    Memory is needed for two windows, and for the rows that two rows of windows share, at full width. All three buffers
    are allocated once.

    Args:
        forward: a function from images to logits.
        take: a function from ``(..., rows, columns)``, two slices, to that part (B, 3, h, w) of the images.
        size: (height, width) of the images.
        window: (height, width) of the windows.
        stride: (height, width) between windows.
        average: what is averaged.

    Yields:
        the first row and the first column of a part, and its logits (B, K, h, w), which the next part overwrites.

    Raises:
        InputError: for a stride larger than its window, or not positive; for image-level logits.
    """
    height, width = size
    rows, columns = min(window[0], height), min(window[1], width)
    tops, lefts = starts(height, window[0], stride[0]), starts(width, window[1], stride[1])
    above, across = _counts(tops, rows, height), _counts(lefts, columns, width)
    sums: _Sums | None = None
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        for left, right in zip(lefts, [*lefts[1:], width], strict=True):
            seen = _into(forward(take((..., slice(top, top + rows), slice(left, left + columns)))), average)
            if seen.ndim != 4:
                raise InputError("window: the network predicts one class per image; leave the window out")
            sums = sums or _Sums(seen, rows - min(map(int.__sub__, tops[1:], tops), default=rows), width)
            done = sums.add(seen, left, right, below - top)
            covered = above[top:below, None] * across[left:right]
            yield top, left, _out_of(done.div_(covered.to(done)), average)
        assert sums is not None, "there is always a first window"
        sums.next_row(rows - (below - top))


class _Sums:
    """The sums over windows for the pixels that later windows also cover.

    Args:
        like: a window's logits (B, K, h, w).
        shared: the largest number of rows that two rows of windows share.
        width: of the images.
    """

    def __init__(self, like: Tensor, shared: int, width: int) -> None:
        self._now, self._next = like.new_zeros(like.shape), like.new_zeros(like.shape)
        self._shared = like.new_zeros(*like.shape[:2], shared, width)
        self._rows = 0  # the number of shared rows that the windows above cover

    def add(self, seen: Tensor, left: int, right: int, done: int) -> Tensor:
        """Add the window at column ``left``; return the sums (B, K, done, right - left) that are now complete.

        ``right`` is the start of the next window of the row. Rows from ``done`` on are shared with the next row.
        """
        columns, ready = seen.shape[-1], right - left
        if left == 0:
            self._enter(self._now, 0, 0)
        self._now += seen
        if right < self._shared.shape[-1]:
            self._next[..., : columns - ready] = self._now[..., ready:]
            self._enter(self._next, columns - ready, right)
        made = self._now[..., :ready]
        self._shared[..., : seen.shape[-2] - done, left:right] = made[..., done:, :]
        self._now, self._next = self._next, self._now
        return made[..., :done, :]

    def next_row(self, rows: int) -> None:
        """Begin a row of windows that shares ``rows`` pixel rows with the row of windows before, in place."""
        self._rows = rows

    def _enter(self, sums: Tensor, first: int, left: int) -> None:
        """Set the columns of ``sums`` from ``first`` on to the sums of the windows above, in place.

        Column 0 of ``sums`` is column ``left`` of the image."""
        sums[..., self._rows :, first:] = 0
        sums[..., : self._rows, first:] = self._shared[..., : self._rows, left + first : left + sums.shape[-1]]


def _counts(begins: Sequence[int], window: int, length: int) -> Tensor:
    """For each of ``length`` pixels, the number of windows, starting at ``begins``, that cover it: (length,)."""
    found = torch.zeros(length)
    for begin in begins:
        found[begin : begin + window] += 1
    return found


def flipped(forward: Forward, images: Tensor, average: Average = "logits") -> Tensor:
    """The mean over the images and their left-to-right mirror images, whose logits are mirrored back."""
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
    """``forward`` with windows inside flips inside scales; ``forward`` itself if none is set.

    Args:
        forward: a function from images to logits.
        window: (height, width) of the windows; None for no windows.
        stride: (height, width) between windows; None for two thirds of the window.
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
    """The mean over ``seen``, with only one view in memory at a time, because full-size logits are large."""
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
