"""SwiftNetRN-18, single scale, as published by the authors on Cityscapes.

Later files contain the mean and standard deviation of images in [0, 255]; earlier ones were trained with ImageNet's.
The release's ReLU works in place, so skips and pooling read the maps after it.

Source: Orsic, Kreso, Bevandic and Segvic, "In defense of pre-trained ImageNet architectures for real-time semantic
segmentation of road-driving images", CVPR 2019; github.com/orsic/swiftnet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.parts.swiftnet_names import BACKBONE, COLOURS, colours, unit
from hardy.networks.published.base import Colours, Publication

__all__ = ["SwiftNetPublication"]


class SwiftNetPublication(Publication):
    """All tensors are used; the normalisation comes from the file."""

    network = "swiftnet"
    repository = "orsic/swiftnet"
    checked = "code"
    signs = (r"backbone\.spp\.spp\.spp_bn\.conv\.weight", r"backbone\.upsample\.0\.bottleneck\.conv\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **BACKBONE,
        **unit(r"backbone\.spp\.spp\.spp_bn", "decoder.pyramid.narrow"),
        **unit(r"backbone\.spp\.spp\.spp([012])", r"decoder.pyramid.levels.\1"),
        **unit(r"backbone\.spp\.spp\.spp_fuse", "decoder.pyramid.join"),
        **unit(r"backbone\.upsample\.([012])\.bottleneck", r"decoder.ladder.\1.skip"),
        **unit(r"backbone\.upsample\.([012])\.blend_conv", r"decoder.ladder.\1.mix"),
        **unit("logits", "decoder.head"),
    }
    dropped = COLOURS

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["logits.conv.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        return {"skip": "relu"}

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """See `Publication.colours`."""
        return colours(weights)
