"""Shared by the published single-scale and pyramid SwiftNets: names of ResNet-18 and units, and the normalisation."""

from collections.abc import Mapping

from torch import Tensor

from hardy.networks.base import IMAGENET_MEAN, IMAGENET_STD
from hardy.networks.published.base import Colours

__all__ = ["BACKBONE", "COLOURS", "colours", "unit"]

BACKBONE = {
    r"backbone\.(conv1|bn1)": r"backbone.\1",
    r"backbone\.(layer[1-4]\.[01]\.(?:conv1|bn1|conv2|bn2|downsample\.[01]))": r"backbone.\1",
}
"""The encoder's layers, named as in ImageNet checkpoints."""

COLOURS = {r"backbone\.img_(mean|std|scale)": "the normalisation of the images, which network.json stores"}


def unit(published: str, ours: str) -> dict[str, str]:
    """A batch norm, a ReLU and a convolution."""
    return {rf"{published}\.norm": f"{ours}.0", rf"{published}\.conv": f"{ours}.2"}


def colours(weights: Mapping[str, Tensor]) -> Colours:
    """The mean and std of ``(255 images / scale - mean) / std`` in the file, for images in [0, 1]; else ImageNet's."""
    if "backbone.img_mean" not in weights:
        return Colours(IMAGENET_MEAN, IMAGENET_STD)
    scale = weights["backbone.img_scale"].flatten().double() if "backbone.img_scale" in weights else 1
    mean, std = (weights[f"backbone.img_{name}"].flatten().double() * scale / 255 for name in ("mean", "std"))
    return Colours(tuple(mean.tolist()), tuple(std.tolist()))
