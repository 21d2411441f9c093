"""SwiftNetRN-18 with an image pyramid as published by the authors on Cityscapes; each image size has its own norms.

Source: Orsic and Segvic, "Efficient semantic segmentation with pyramidal fusion", Pattern Recognition 2021;
github.com/orsic/swiftnet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.parts.swiftnet_names import BACKBONE, COLOURS, colours, unit
from hardy.networks.published.base import Colours, Publication

__all__ = ["SwiftNetPyramidPublication"]


class SwiftNetPyramidPublication(Publication):
    """All tensors are used; the normalisation comes from the file."""

    network = "swiftnet_pyramid"
    repository = "orsic/swiftnet"
    checked = "code"
    signs = (r"backbone\.upsample_bottlenecks\.0\.weight", r"backbone\.upsample_blends\.0\.blend_conv\.conv\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **BACKBONE,
        r"backbone\.(bn1\.\d)": r"backbone.\1",
        r"backbone\.(layer[1-4]\.[01]\.bn[12]\.\d)": r"backbone.\1",
        **{rf"backbone\.upsample_bottlenecks\.{place}": f"narrow.{3 - place}" for place in range(4)},
        **unit(r"backbone\.upsample_blends\.(\d)\.blend_conv", r"ladder.\1"),
        **unit("logits", "head"),
    }
    dropped = COLOURS

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["logits.conv.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        levels = [name for name in weights if name.startswith("backbone.bn1.") and name.endswith(".weight")]
        return {"levels": len(levels), "subsample": "bicubic"}

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """See `Publication.colours`."""
        return colours(weights)
