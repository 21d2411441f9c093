"""DDRNet-23-slim and DDRNet-23 as their authors published them on Cityscapes.

Source: Hong, Pan, Sun and Jia, "Deep dual-resolution networks for real-time and accurate semantic segmentation of road
scenes", arXiv:2101.06085, 2021; github.com/ydhongHIT/DDRNet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.errors import InputError
from hardy.networks.parts.dual_branch_names import BACKBONE, LOSSES, POOLING, head
from hardy.networks.published.base import Publication

__all__ = ["DDRNetPublication"]

_VARIANTS = {32: "23_slim", 64: "23"}


class DDRNetPublication(Publication):
    """The network has the auxiliary head if the file has one."""

    network = "ddrnet"
    repository = "ydhongHIT/DDRNet"
    checked = "code"
    signs = (r"down3\.0\.weight", r"spp\.process1\.2\.weight", r"final_layer\.conv2\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **BACKBONE,
        r"(down[34]\.[0134])": r"backbone.\1",
        **POOLING,
        **head("final_layer", "head"),
        **head("seghead_extra", "aux"),
    }
    dropped = LOSSES

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["final_layer.conv2.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        width, blocks = len(weights["conv1.0.weight"]), [name for name in weights if name.endswith(".bn1.weight")]
        if width not in _VARIANTS or any(name.startswith("layer3.2.") for name in blocks):
            have = ", ".join(_VARIANTS.values())
            raise InputError(f"a DDRNet with {width} channels or more than two blocks per stage; Hardy has {have}")
        return {"variant": _VARIANTS[width], "aux": "seghead_extra.conv2.weight" in weights}
