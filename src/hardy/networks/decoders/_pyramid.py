"""A pyramid from the maps of a plain transformer, which all have one size.

Source: Wei et al., "Stronger, fewer, & superior: harnessing vision foundation models for domain generalized semantic
segmentation", CVPR 2024, where maps of stride 16 are resized to strides 4, 8, 16 and 32.
"""

from collections.abc import Sequence

from torch import Tensor

from hardy.networks.base import resize

__all__ = ["one_stride", "pyramid"]


def one_stride(strides: Sequence[int]) -> bool:
    """Whether there are four maps or more, and the last four have the same stride."""
    return len(strides) >= 4 and len(set(strides[-4:])) == 1


def pyramid(maps: Sequence[Tensor]) -> list[Tensor]:
    """The last four maps, all of one size, resized to 4, 2, 1 and 1/2 of it (the last rounded up), bilinear."""
    height, width = maps[-1].shape[-2:]
    sizes = [(4 * height, 4 * width), (2 * height, 2 * width), (height, width), ((height + 1) // 2, (width + 1) // 2)]
    return [resize(x, size) for x, size in zip(maps[-4:], sizes, strict=True)]
