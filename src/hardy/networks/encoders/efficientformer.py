"""EfficientFormer L1, L3 and L7 at any size: four stages of pooling, with attention in the last blocks only.

The layers are timm's. The attention's position biases, trained on the 7x7 cells of an image of 224x224 pixels, are
resized to the grid of the image.

Source: Li et al., "EfficientFormer: vision transformers at MobileNet speed", NeurIPS 2022, section 4 and appendix; the
biases' interpolation: `hardy.ops.relative_bias`.
"""

from collections.abc import Mapping
from typing import Any

import timm
from timm.models.efficientformer import Flat, MetaBlock1d
from torch import Tensor, nn

from hardy.networks.encoders.base import Encoder
from hardy.networks.parts.any_size_attention import AnySizeAttention

__all__ = ["EfficientFormer"]


class EfficientFormer(Encoder):
    """Maps of (48, 96, 224, 448), (64, 128, 320, 512) or (96, 192, 384, 768) channels at strides 4, 8, 16, 32.

    Weights come from a file with timm's names or from a timm tag.

    Args:
        name: ``efficientformer_l1``, ``efficientformer_l3`` or ``efficientformer_l7``.
    """

    variants = ("efficientformer_l1", "efficientformer_l3", "efficientformer_l7")
    in_timm = True
    outside = ("head.", "head_dist.")

    def __init__(self, name: str) -> None:
        model: Any = timm.create_model(name)
        super().__init__(name, [stage["num_chs"] for stage in model.feature_info])
        self.stem, self.stages, self.norm = model.stem, model.stages, model.norm
        blocks = self.stages[-1].blocks
        for place, block in enumerate(blocks):
            if isinstance(block, Flat):
                blocks[place] = _ChannelsLast()
            elif isinstance(block, MetaBlock1d):
                block.token_mixer = AnySizeAttention(block.token_mixer)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes as above; the last map after its norm."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return [*maps[:-1], self.norm(x).permute(0, 3, 1, 2)]

    def renamed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Encoder.renamed`; the tables of distances are left out, because they are computed."""
        return {name: value for name, value in weights.items() if not name.endswith(".attention_bias_idxs")}


class _ChannelsLast(nn.Module):
    """``(B, C, h, w) -> (B, h, w, C)``, where timm has ``(B, h w, C)``: linear layers and norms accept both."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)
