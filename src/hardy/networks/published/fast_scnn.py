"""Fast-SCNN as trained by Tramac on Cityscapes: its most used public release; the paper's authors published none.

Its first convolution has no padding, and it resizes maps with aligned corners.

Source: Poudel, Liwicki and Cipolla, "Fast-SCNN: fast semantic segmentation network", BMVC 2019;
github.com/Tramac/Fast-SCNN-pytorch.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.published.base import Publication

__all__ = ["FastSCNNPublication"]


def _separable(published: str, ours: str) -> dict[str, str]:
    """A depthwise and a pointwise convolution with their norms, which the release has in one list."""
    places = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1"}
    return {rf"{published}\.conv\.{old}": f"{ours}.{new}" for old, new in places.items()}


def _bottlenecks() -> dict[str, str]:
    """Three stages of three inverted residuals each, which Hardy numbers consecutively."""
    parts = {"0\\.conv\\.(0|1)": "expand", "1\\.conv\\.(0|1)": "depthwise"}
    names: dict[str, str] = {}
    for stage in range(3):
        for place in range(3):
            published = rf"global_feature_extractor\.bottleneck{stage + 1}\.{place}\.block"
            ours = f"context.{3 * stage + place}"
            names |= {rf"{published}\.{old}": rf"{ours}.{new}.\1" for old, new in parts.items()}
            names |= {rf"{published}\.2": f"{ours}.project.0", rf"{published}\.3": f"{ours}.project.1"}
    return names


def _pooling() -> dict[str, str]:
    published, ours = r"global_feature_extractor\.ppm", "context.9"
    branches = {rf"{published}\.conv{n + 1}\.conv\.(0|1)": rf"{ours}.branches.{n}.\1" for n in range(4)}
    return branches | {rf"{published}\.out\.conv\.(0|1)": rf"{ours}.join.\1"}


class FastSCNNPublication(Publication):
    """The network has the auxiliary head if the file has one."""

    network = "fast_scnn"
    repository = "Tramac/Fast-SCNN-pytorch"
    checked = "code"
    signs = (r"learning_to_downsample\.conv\.conv\.0\.weight", r"global_feature_extractor\.ppm\.out\.conv\.0\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        r"learning_to_downsample\.conv\.conv\.(0|1)": r"detail.0.\1",
        **_separable(r"learning_to_downsample\.dsconv1", "detail.1"),
        **_separable(r"learning_to_downsample\.dsconv2", "detail.2"),
        **_bottlenecks(),
        **_pooling(),
        r"feature_fusion\.dwconv\.conv\.(0|1)": r"fusion.filter.\1",
        r"feature_fusion\.conv_lower_res\.(0|1)": r"fusion.context.\1",
        r"feature_fusion\.conv_higher_res\.(0|1)": r"fusion.detail.\1",
        **_separable(r"classifier\.dsconv1", "head.0"),
        **_separable(r"classifier\.dsconv2", "head.1"),
        r"classifier\.conv\.1": "head.3",
        r"auxlayer\.(0|1)": r"aux.0.\1",
        r"auxlayer\.4": "aux.2",
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["classifier.conv.1.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        width = len(weights["learning_to_downsample.conv.conv.0.weight"]) / 32
        return {"width": width, "aux": "auxlayer.4.weight" in weights, "padding": 0, "align_corners": True}
