"""FANet as the authors' training code saves it, with the differences of that code from the paper.

Three layers of that code have no effect on the logits. Two are dropped; the auxiliary head reads the third, a
convolution at stride 64.

Source: Hu, Perazzi, Heilbron, Wang, Lin, Saenko and Sclaroff, "Real-time semantic segmentation with fast attention",
IEEE Robotics and Automation Letters 2021; github.com/feinanshan/FANet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.errors import InputError
from hardy.networks.published.base import Publication

__all__ = ["FANetPublication"]

_LEVELS = (4, 8, 16, 32)
"""The release's names of the maps at strides 8 to 64."""
_PARTS = {"w_qs": "query", "w_ks": "key", "w_vs": "value", "latlayer3": "mix"}


def _unit(published: str, ours: str) -> dict[str, str]:
    """A convolution and a norm."""
    return {rf"{published}\.conv": f"{ours}.0", rf"{published}\.bn": f"{ours}.1"}


def _attention() -> dict[str, str]:
    names: dict[str, str] = {}
    for place, level in enumerate(_LEVELS):
        for old, new in _PARTS.items():
            names |= _unit(rf"ffm_{level}\.{old}", f"attention.{place}.{new}")
    return names


class FANetPublication(Publication):
    """The network has the auxiliary heads if the file has them; files saved by the training code always have them."""

    network = "fanet"
    repository = "feinanshan/FANet"
    checked = "code"
    signs = (r"ffm_32\.w_qs\.conv\.weight", r"ffm_4\.smooth\.conv\.weight", r"clslayer_8\.conv_out\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        r"resnet\.(conv1|bn1)": r"backbone.\1",
        r"resnet\.(layer[1-4]\.\d\.(?:conv[12]|bn[12]|downsample\.[01]))": r"backbone.\1",
        **_attention(),
        **_unit(r"ffm_8\.up", "down.0"),
        **_unit(r"ffm_16\.up", "down.1"),
        **_unit(r"ffm_32\.up", "down.2"),
        **_unit(r"ffm_4\.smooth", "fine"),
        **_unit(r"ffm_16\.smooth", "coarse"),
        **_unit(r"clslayer_8\.conv", "mix"),
        r"clslayer_8\.conv_out": "head",
        **_unit(r"ffm_32\.smooth", "aux.coarsest.0"),
        **_unit(r"clslayer_32\.conv", "aux.coarsest.1"),
        r"clslayer_32\.conv_out": "aux.coarsest.2",
        **_unit(r"clslayer_16\.conv", "aux.coarse.0"),
        r"clslayer_16\.conv_out": "aux.coarse.1",
    }
    dropped: ClassVar[Mapping[str, str]] = {
        r"(ffm_4\.up|ffm_8\.smooth)\..*": "a layer whose output the published network never reads"
    }

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["clslayer_8.conv_out.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        blocks = len({name.split(".")[2] for name in weights if name.startswith("resnet.layer3.")})
        variants = {2: 18, 6: 34}
        if blocks not in variants or "resnet.layer1.0.conv3.weight" in weights:
            raise InputError("a FANet with another ResNet; Hardy has 18 and 34")
        return {"variant": variants[blocks], "aux": "clslayer_32.conv_out.weight" in weights, "published": True}
