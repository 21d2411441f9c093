"""PIDNet S, M and L as published by the authors on Cityscapes and CamVid; they resize logits with aligned corners.

Source: Xu, Xiong and Bhattacharyya, "PIDNet: a real-time semantic segmentation network inspired by PID controllers",
CVPR 2023; github.com/XuJiacong/PIDNet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.errors import InputError
from hardy.networks.parts.dual_branch_names import BACKBONE, LOSSES, POOLING, head
from hardy.networks.published.base import Publication

__all__ = ["PIDNetPublication"]

_VARIANTS = {(32, 128): "s", (64, 128): "m", (64, 256): "l"}
"""Channels of the stem and of the head."""


class PIDNetPublication(Publication):
    """The network has the auxiliary head and the boundary head if the file has them.

    In the boundary branch the layers of a single block have no block number; in M and S its second stage is a list of
    one block.
    """

    network = "pidnet"
    repository = "XuJiacong/PIDNet"
    checked = "code"
    signs = (r"pag3\.f_x\.0\.weight", r"layer5_d\.0\.conv1\.weight", r"final_layer\.conv2\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **BACKBONE,
        r"(pag[34]\.f_[xy]\.[01])": r"backbone.\1",
        r"layer3_d\.((?:conv|bn)[12]|downsample\.[01])": r"boundary.early.\1",
        r"layer4_d(?:\.0)?\.((?:conv|bn)[123]|downsample\.[01])": r"boundary.middle.\1",
        r"layer5_d\.0\.((?:conv|bn)[123]|downsample\.[01])": r"boundary.late.\1",
        r"diff3\.([01])": r"boundary.from_third.\1",
        r"diff4\.([01])": r"boundary.from_fourth.\1",
        **POOLING,
        r"dfm\.conv_p\.([01])": r"fusion.detail.\1",
        r"dfm\.conv_i\.([01])": r"fusion.context.\1",
        r"dfm\.conv\.([02])": r"fusion.mix.\1",
        **head("final_layer", "head"),
        **head("seghead_p", "aux"),
        **head("seghead_d", "boundary_head"),
    }
    dropped = LOSSES

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["final_layer.conv2.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        size = (len(weights["conv1.0.weight"]), len(weights["final_layer.conv1.weight"]))
        if size not in _VARIANTS:
            raise InputError(f"a PIDNet with {size[0]} channels and a head of {size[1]}; Hardy has S, M and L")
        return {"variant": _VARIANTS[size], "aux": "seghead_p.conv2.weight" in weights, "align_corners": True}
