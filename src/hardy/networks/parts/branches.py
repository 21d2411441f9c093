"""Shared by multi-branch networks: padding of small images, stem, head, and loading of ImageNet weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardy.blocks.norm_act_conv import NormActConv
from hardy.blocks.sizes import has_size
from hardy.networks.building.weights import fill, read_weights

__all__ = ["cropped", "fill_trunk", "head", "padded", "stem"]


def padded(images: Tensor, least: int) -> Tensor:
    """``images`` padded with zeros at the right and the bottom to sides of at least ``least``.

    Without it the coarsest map of a small image would have a single cell: a batch norm cannot normalise it in a batch
    of one, and `torch.export` treats a size of 1 as a constant.

    The padded size must be a maximum. Of a sum with a part that may be 0, later sizes would divide that part minus 1
    apart, and ONNX rounds the quotient of a negative number up.
    """
    height, width = images.shape[-2:]
    below, right = torch.sym_max(height, least) - height, torch.sym_max(width, least) - width
    if isinstance(height, int) and isinstance(width, int) and below == right == 0:
        return images
    return F.pad(images, (0, right, 0, below))  # type: ignore[arg-type]


def cropped(x: Tensor, size: Sequence[int]) -> Tensor:
    """The upper left ``size`` (h, w) cells of ``x`` (B, C, h', w'), without those of the padding."""
    return x if has_size(x, size) else x[..., : size[0], : size[1]]


def stem(width: int) -> nn.Sequential:
    """Images to ``width`` channels at stride 4; its convolutions have biases, as in the authors' checkpoints."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )


def head(in_channels: int, width: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution to ``width`` and a classifier, each after a batch norm and a ReLU."""
    return nn.Sequential(NormActConv(in_channels, width, kernel=3), NormActConv(width, out_channels, bias=True))


def fill_trunk(trunk: nn.Module, file: str, *, optional: Sequence[str] = ()) -> None:
    """Load the weights of ``file`` into ``trunk`` in place, under the names of its children.

    The authors' ImageNet classifiers have other heads, so tensors outside the trunk are ignored. ``optional`` children
    keep their random weights if the file has none for them.

    Raises:
        InputError: if the file cannot be read, lacks a weight, or has one of another shape; ``trunk`` is not changed
            then.
    """
    found = read_weights(file)
    prefix = "model." if all(name.startswith("model.") for name in found) else ""
    weights = {name.removeprefix(prefix): value for name, value in found.items()}
    has = {name.partition(".")[0] for name in weights}
    parts = nn.ModuleDict(
        {name: child for name, child in trunk.named_children() if name in has or name not in optional}
    )
    fill(parts, {name: value for name, value in weights.items() if name.partition(".")[0] in parts}, file)
