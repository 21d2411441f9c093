"""ESPNet and ESPNet-C as published by the authors, on Cityscapes (20 classes) and CamVid (12); the last class is void.

The decoder of the Cityscapes files joins the finest map without the image, that of the CamVid file with the image. All
take BGR images; the weights that read an image are permuted to RGB: the first convolution, and the norms and
convolutions after each place where the averaged image joins a map.

Source: Mehta, Rastegari, Caspi, Shapiro and Hajishirzi, "ESPNet: efficient spatial pyramid of dilated convolutions for
semantic segmentation", ECCV 2018; github.com/sacmehta/ESPNet.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hardy.networks.published.base import Colours, Publication, in_rgb

__all__ = ["ESPNetPublication"]

_BRANCHES = {"c1": "reduce", "d1": "branches.0", "d2": "branches.1", "d4": "branches.2", "d8": "branches.3"}
_BRANCHES |= {"d16": "branches.4"}


def _pyramid(published: str, ours: str, *, nested: bool) -> dict[str, str]:
    """The layers of one efficient spatial pyramid; ``nested``: its last norm and activation are inside a module."""
    norm = r"bn\." if nested else ""
    parts = {rf"{old}\.conv": new for old, new in _BRANCHES.items()} | {f"{norm}bn": "norm", f"{norm}act": "act"}
    return {rf"{published}\.{old}": f"{ours}.{new}" for old, new in parts.items()}


class ESPNetPublication(Publication):
    """A file with only an encoder is ESPNet-C. The decoder has as many channels as the file has classes, including
    void."""

    network = "espnet"
    repository = "sacmehta/ESPNet"
    checked = "files"
    prefix = r"encoder\."
    signs = (r"level2_0\.c1\.conv\.weight", r"level3\.0\.d16\.conv\.weight", r"classifier\.conv\.weight")
    layers: ClassVar[Mapping[str, str]] = {
        r"level1\.conv": "level1.0",
        r"level1\.bn": "level1.1",
        r"level1\.act": "level1.2",
        r"b([123])\.bn": r"norm\1.0",
        r"b([123])\.act": r"norm\1.1",
        **_pyramid(r"level([23])_0", r"level\1.down", nested=False),
        **_pyramid(r"level([23])\.(\d+)", r"level\1.blocks.\2", nested=True),
        r"classifier\.conv": "classifier",
        r"level3_C\.conv": "decoder.narrow",
        r"br": "decoder.norm",
        r"up_l3\.0": "decoder.up1",
        r"combine_l2_l3\.0\.bn": "decoder.join1.0.0",
        r"combine_l2_l3\.0\.act": "decoder.join1.0.1",
        **_pyramid(r"combine_l2_l3\.1", "decoder.join1.1", nested=True),
        r"up_l2\.0": "decoder.up2",
        r"up_l2\.1\.bn": "decoder.act.0",
        r"up_l2\.1\.act": "decoder.act.1",
        r"conv\.conv": "decoder.join2.0",
        r"conv\.bn": "decoder.join2.1",
        r"conv\.act": "decoder.join2.2",
        r"classifier": "decoder.up3",
    }
    channels = "BGR"
    void = True

    def class_count(self, weights: Mapping[str, Tensor]) -> int:
        """See `Publication.class_count`."""
        return len(weights["classifier.conv.weight"])

    def options(self, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        """See `Publication.options`."""
        blocks = {level: {name.split(".")[1] for name in weights if name.startswith(f"{level}.")} for level in _LEVELS}
        options: dict[str, Any] = {"p": len(blocks["level2"]), "q": len(blocks["level3"])}
        if "classifier.weight" not in weights:
            return options | {"decoder": False}
        width, joined = weights["conv.conv.weight"].shape[:2]
        return options | {"width": width, "finest": "convolution" if joined == width + 16 else "level1"}

    def colours(self, weights: Mapping[str, Tensor]) -> Colours:
        """For ``((255 images - mean) / std) / 255``, with CamVid's numbers for 12 classes, else with Cityscapes'."""
        mean, std = _COLOURS["camvid" if self.class_count(weights) == 12 else "cityscapes"]
        return Colours(tuple(number / 255 for number in mean), std)

    def converted(self, weights: dict[str, Tensor], class_count: int) -> dict[str, Tensor]:
        """See `Publication.converted`: BGR to RGB, and without void if ``class_count`` excludes it."""
        flipped = {name: in_rgb(value, *_IMAGES[name]) for name, value in weights.items() if name in _IMAGES}
        for norm, first in (("norm1", 16), ("norm2", 128)):
            own = [name for name in weights if name.startswith(f"{norm}.") and weights[name].ndim == 1]
            flipped |= {name: in_rgb(weights[name], first, axis=0) for name in own}
        joined = weights.get("decoder.join2.0.weight")
        if joined is not None and joined.shape[1] == joined.shape[0] + 19:
            flipped["decoder.join2.0.weight"] = in_rgb(joined, len(joined) + 16)
        last = weights.get("decoder.up3.weight")
        cut = {"classifier.weight": weights["classifier.weight"][:class_count]} if last is None else {}
        cut |= {} if last is None else {"decoder.up3.weight": last[:, :class_count]}
        return weights | flipped | cut


_COLOURS = {
    "cityscapes": Colours((73.15840149, 82.90893555, 72.3923111), (44.91483307, 46.15289307, 45.3192215)),
    "camvid": Colours((105.033194, 108.408863, 110.331026), (69.904348, 72.690745, 72.125710)),
}
"""For RGB images in [0, 255]. Those of Cityscapes are in the release. Those of CamVid are not: they are averages over
the 367 training images of each image's mean and standard deviation, as the training code computes them."""
_LEVELS = ("level2", "level3")
_IMAGES = {
    "level1.0.weight": (0,),
    "level2.down.reduce.weight": (16,),
    "level3.down.reduce.weight": (128,),
    "decoder.narrow.weight": (128,),
}
"""Convolutions that read an image -> the index of its first channel."""
