"""Renames the weights of torchvision's MobileNetV2 to timm's names.

Both have the same layers in the same order (Sandler et al., CVPR 2018, table 2): torchvision numbers the blocks
``features.1`` to ``features.17``, timm by stage and index within the stage. ResNets have the same names in both.
"""

from collections.abc import Mapping

from torch import Tensor

__all__ = ["in_timm_names"]

_STAGES = (1, 2, 3, 4, 3, 3, 1)
_BLOCKS = [(stage, place) for stage, repeats in enumerate(_STAGES) for place in range(repeats)]
_STEM = {"0.0": "conv_stem", "0.1": "bn1", "18.0": "conv_head", "18.1": "bn2"}
_FIRST = {"0.0": "conv_dw", "0.1": "bn1", "1": "conv_pw", "2": "bn2"}
_OTHER = {"0.0": "conv_pw", "0.1": "bn1", "1.0": "conv_dw", "1.1": "bn2", "2": "conv_pwl", "3": "bn3"}


def in_timm_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` under timm's names if they are of torchvision's MobileNetV2, else unchanged."""
    if "features.1.conv.0.0.weight" not in weights:
        return dict(weights)
    names = {f"features.{old}": new for old, new in _STEM.items()} | {"classifier.1": "classifier"}
    for number, (stage, place) in enumerate(_BLOCKS, start=1):
        for old, new in (_FIRST if number == 1 else _OTHER).items():
            names[f"features.{number}.conv.{old}"] = f"blocks.{stage}.{place}.{new}"
    renamed = {}
    for name, value in weights.items():
        layer, _, leaf = name.rpartition(".")
        renamed[f"{names[layer]}.{leaf}" if layer in names else name] = value
    return renamed
