"""BiSeNetV2 as trained by CoinCheung on Cityscapes, COCO-Stuff or ADE20K: its most used public release.

For the current version of the release, which enlarges maps by nearest neighbour; the first version has other heads
(pixel shuffle). The number of classes determines the normalisation: 171 for COCO-Stuff, 150 for ADE20K, any other for
Cityscapes, as in the release's demo.

Source: Yu, Gao, Wang, Yu, Shen and Sang, "BiSeNet V2: bilateral network with guided aggregation for real-time semantic
segmentation", IJCV 2021; github.com/CoinCheung/BiSeNet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.published.base import Colours, Publication

__all__ = ["BiSeNetV2Publication"]

_CITYSCAPES = Colours((0.3257, 0.3690, 0.3223), (0.2112, 0.2148, 0.2115))
_OTHERS = {
    171: Colours((0.46962251, 0.4464104, 0.40718787), (0.27469736, 0.27012361, 0.28515933)),
    150: Colours((0.49343230, 0.46819794, 0.43106043), (0.25680755, 0.25506608, 0.27422913)),
}
_UNIT = {"conv": "0", "bn": "1"}


def _unit(published: str, ours: str) -> dict[str, str]:
    """A convolution and a norm."""
    return {rf"{published}\.{old}": f"{ours}.{new}" for old, new in _UNIT.items()}


def _detail() -> dict[str, str]:
    """Three stages of two, three and three convolutions, which Hardy numbers consecutively."""
    names: dict[str, str] = {}
    count = 0
    for stage, convolutions in enumerate((2, 3, 3), start=1):
        for place in range(convolutions):
            names |= _unit(rf"detail\.S{stage}\.{place}", f"detail.{count}")
            count += 1
    return names


def _gather(published: str, ours: str) -> dict[str, str]:
    """A gather-and-expansion block; the first of a stage has stride 2 and a shortcut of two convolutions."""
    return {
        **_unit(rf"{published}\.conv1", f"{ours}.gather"),
        rf"{published}\.dwconv1?\.([01])": rf"{ours}.expand.0.\g<last>",
        rf"{published}\.dwconv2\.([01])": rf"{ours}.expand.1.\g<last>",
        rf"{published}\.conv2\.([01])": rf"{ours}.project.\g<last>",
        rf"{published}\.shortcut\.([01])": rf"{ours}.shortcut.0.\g<last>",
        rf"{published}\.shortcut\.2": f"{ours}.shortcut.1.0",
        rf"{published}\.shortcut\.3": f"{ours}.shortcut.1.1",
    }


def _stages() -> dict[str, str]:
    names: dict[str, str] = {}
    for number, stage in enumerate(("S3", "S4", "S5_4"), start=1):
        layers = _gather(rf"segment\.{stage}\.(\d)", rf"semantic.{number}.\1")
        names |= {old: new.replace(r"\g<last>", r"\2") for old, new in layers.items()}
    return names


def _boosters() -> dict[str, str]:
    names: dict[str, str] = {}
    for number, head in enumerate(("aux2", "aux3", "aux4", "aux5_4")):
        names |= _unit(rf"{head}\.conv", f"boosters.{number}.narrow.0")
        names |= _unit(rf"{head}\.conv_out\.0\.1", f"boosters.{number}.widen")
        names |= {rf"{head}\.conv_out\.1": f"boosters.{number}.classifier"}
    return names


class BiSeNetV2Publication(Publication):
    """The network has the booster heads if the file has them."""

    network = "bisenetv2"
    repository = "CoinCheung/BiSeNet"
    checked = "code"
    signs = (r"segment\.S1S2\.fuse\.conv\.weight", r"bga\.left1\.0\.weight", r"head\.conv_out\.1\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        **_detail(),
        **_unit(r"segment\.S1S2\.conv", "semantic.0.first"),
        **_unit(r"segment\.S1S2\.left\.([01])", r"semantic.0.filter.\1"),
        **_unit(r"segment\.S1S2\.fuse", "semantic.0.join"),
        **_stages(),
        r"segment\.S5_5\.bn": "context.context.0",
        r"segment\.S5_5\.conv_gap\.conv": "context.context.1",
        r"segment\.S5_5\.conv_gap\.bn": "context.context.2",
        **_unit(r"segment\.S5_5\.conv_last", "context.mix"),
        r"bga\.left1\.([01])": r"fusion.detail_fine.0.\1",
        r"bga\.left1\.2": "fusion.detail_fine.1",
        r"bga\.left2\.([01])": r"fusion.detail_coarse.0.\1",
        r"bga\.right1\.([01])": r"fusion.semantic_fine.\1",
        r"bga\.right2\.([01])": r"fusion.semantic_coarse.0.\1",
        r"bga\.right2\.2": "fusion.semantic_coarse.1",
        r"bga\.conv\.([01])": r"fusion.mix.\1",
        **_unit(r"head\.conv", "head.0"),
        r"head\.conv_out\.1": "head.2",
        **_boosters(),
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["head.conv_out.1.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        options = {"head_width": len(weights["head.conv.conv.weight"]), "upsample": "nearest"}
        if "aux2.conv.conv.weight" not in weights:
            return options | {"aux": False}
        return options | {"aux": True, "booster_width": len(weights["aux2.conv.conv.weight"])}

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """See `Publication.colours`."""
        return _OTHERS.get(self.class_count(weights), _CITYSCAPES)
